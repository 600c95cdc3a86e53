"""What worker/vllm_engine.py relies on in vLLM, much of it declared unstable there. No engine is started."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from worker.constraint_compiler import _choice_grammar
from worker.engine import EngineError, FinishReason
from worker.step_meter import StepMeter
from worker.vllm_child import end_with_parent
from worker.vllm_continuation import PLUGIN, continuation_arguments, install
from worker.vllm_output import engine_finish
from worker.vllm_settings import VllmSettings, engine_arguments

pytestmark = pytest.mark.vllm


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of vLLM's dependencies about one another
        import worker.vllm_engine  # noqa: F401 - sets vLLM's environment before it is imported


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_engine_takes_our_arguments() -> None:
    """Each is a field of AsyncEngineArgs, on a GPU and on a CPU."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    for is_cpu in (False, True):
        arguments = engine_arguments(VllmSettings(model_dir=Path("model")), is_cpu=is_cpu)
        assert set(arguments) <= {field.name for field in dataclasses.fields(AsyncEngineArgs)}


def test_the_arguments_of_two_gpus_over_ray_reach_the_engine() -> None:
    """By the names that vLLM gives them."""
    settings = VllmSettings(model_dir=Path("model"), tensor_parallel_size=2, distributed_executor_backend="ray")
    arguments = engine_arguments(settings, is_cpu=False)
    assert (2, 1, "ray") == (
        arguments["tensor_parallel_size"],
        arguments["pipeline_parallel_size"],
        arguments["distributed_executor_backend"],
    )


@pytest.mark.parametrize("asked", [512, None])
@pytest.mark.parametrize("may_cut", [True, False])
def test_running_requests_take_nothing_from_a_steps_prompts(
    tmp_path: Path, *, asked: int | None, may_cut: bool
) -> None:
    """Where prompts may be cut; a step that takes whole ones alone has vLLM's own size, which is the machine's."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    from worker.vllm_engine import _ServerArgs

    def step_tokens(kind: type[AsyncEngineArgs]) -> int:
        arguments = kind(
            model=str(tmp_path), max_num_seqs=48, max_num_batched_tokens=asked, enable_chunked_prefill=may_cut
        )
        arguments._set_default_max_num_seqs_and_batched_tokens_args(
            UsageContext.OPENAI_API_SERVER,
            SimpleNamespace(max_model_len=4_096, is_multimodal_model=False),
            SimpleNamespace(use_batched_dp_moe=False),
        )
        return int(arguments.max_num_batched_tokens)

    assert step_tokens(AsyncEngineArgs) + (48 if may_cut else 0) == step_tokens(_ServerArgs)


def test_the_stat_logger_is_called_as_ours_is_written() -> None:
    """Same parameters, in the same order."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    from worker.vllm_engine import _StepListener

    assert _parameters(StatLoggerBase.record) == _parameters(_StepListener.record)
    assert {"__init__", "record", "log_engine_initialized"} == StatLoggerBase.__abstractmethods__


def test_the_statistics_have_what_is_read_from_them() -> None:
    """The engine's, and the step's."""
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats

    scheduler, iteration = SchedulerStats(), IterationStats()
    assert (0.0, 0, 0, 0) == (
        scheduler.kv_cache_usage,
        scheduler.num_running_reqs,
        scheduler.num_waiting_reqs,
        scheduler.num_skipped_waiting_reqs,
    )
    assert (0, 0, 0) == (
        iteration.prompt_token_stats.computed,
        iteration.num_generation_tokens,
        iteration.num_preempted_reqs,
    )


@pytest.mark.parametrize("total_blocks", [1, 3, 48, 31_838, 1_000_003])
def test_free_blocks_are_the_exact_inverse_of_usage(total_blocks: int) -> None:
    """As vLLM's block pool computes it, with its null block."""
    from vllm.v1.core.block_pool import BlockPool

    meter = StepMeter(total_blocks, now=0.0)
    step = max(1, total_blocks // 997)
    for free in [*range(0, total_blocks, step), total_blocks]:
        pool = SimpleNamespace(num_gpu_blocks=total_blocks + 1, get_num_free_blocks=lambda free=free: free)
        meter.record_requests(kv_usage=BlockPool.get_usage(pool), running=0, waiting=0)
        assert free == meter.load().free_blocks


def test_a_request_is_added_as_we_do() -> None:
    """By name, apart from the first three; and an AsyncLLM hands it on to its output processor with its queue."""
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import OutputProcessor

    from worker.vllm_steps import StepProcessor

    parameters = _parameters(AsyncLLM.add_request)
    assert ["self", "request_id", "prompt", "params"] == parameters[:4]
    assert {"errored", "abort", "shutdown"} <= set(dir(AsyncLLM))
    for name in ("add_request", "process_outputs"):
        ours, theirs = getattr(StepProcessor, name), getattr(OutputProcessor, name)
        assert _parameters(theirs) == _parameters(ours)


def test_every_way_to_finish_is_known() -> None:
    """Those that are no end of ours are errors of the request."""
    from vllm.v1.engine import FINISH_REASON_STRINGS

    ours = {reason.value for reason in FinishReason}
    assert {"abort", "error"} == set(FINISH_REASON_STRINGS) - ours


def test_an_output_that_vllm_gave_up_is_an_error() -> None:
    """Such as that of an aborted request."""
    with pytest.raises(EngineError, match="abort"):
        engine_finish("abort", None, SimpleNamespace(), cached_prompt_tokens=0)


def test_choices_are_compiled_as_vllm_does() -> None:
    """The worker checks the grammar that the engine will obey."""
    from vllm.v1.structured_output.utils import choice_as_grammar

    choices = ('say "no"', "back\\slash", "two\nlines\t\r", "bell\x07\x7f", "\N{CAT} é")
    assert choice_as_grammar(list(choices)) == _choice_grammar(choices)


def test_vllm_runs_our_plugin_in_its_processes() -> None:
    """It ends them with the worker."""
    from vllm.plugins import DEFAULT_PLUGINS_GROUP

    (plugin,) = (plugin for plugin in entry_points(group=DEFAULT_PLUGINS_GROUP) if plugin.name == "tidegate")
    assert plugin.load() is end_with_parent


def test_vllm_runs_our_plugin_for_continued_outputs() -> None:
    """Under the name for which the engine looks."""
    from vllm.plugins import DEFAULT_PLUGINS_GROUP, load_plugins_by_group

    assert load_plugins_by_group(DEFAULT_PLUGINS_GROUP)[PLUGIN] is install


def _continued_request(*, has_penalties: bool) -> Any:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.request import Request

    install()
    arguments = continuation_arguments(2, has_penalties=has_penalties)
    core = EngineCoreRequest(
        request_id="request",
        prompt_token_ids=[1, 2, 3, 4],
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=9, extra_args=arguments),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
    return Request.from_engine_core_request(core, None)


def test_a_continued_output_is_prompt_to_the_scheduler() -> None:
    """As long as nothing depends on the difference."""
    request = _continued_request(has_penalties=False)
    assert ([1, 2, 3, 4], []) == (request.prompt_token_ids, list(request.output_token_ids))


def test_a_continued_output_is_output_where_penalties_count_it() -> None:
    """To the scheduler, and to the model runner, which is given it as vLLM's two kinds of runner expect it."""
    from vllm.v1.core.sched.output import NewRequestData
    from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

    request = _continued_request(has_penalties=True)
    assert ([1, 2], 2) == (request.prompt_token_ids, request.num_prompt_tokens)
    assert ([3, 4], [1, 2, 3, 4]) == (list(request.output_token_ids), list(request.all_token_ids))
    # The scheduler asserts that what is cached of the first run of a request is prompt.
    assert 0 < request.num_preemptions

    second = NewRequestData.from_request(request, ([0],), request._all_token_ids)
    assert ([1, 2], [1, 2, 3, 4]) == (second.prompt_token_ids, second.prefill_token_ids)

    first = NewRequestData.from_request(request, ([0],))
    state = CachedRequestState(
        req_id="request",
        prompt_token_ids=first.prompt_token_ids,
        mm_features=[],
        sampling_params=first.sampling_params,
        generator=None,
        block_ids=([0],),
        num_computed_tokens=0,
        output_token_ids=[],
    )
    with pytest.raises(AttributeError):  # what stands in for the batch has nothing, and comes after the split
        InputBatch.add_request(SimpleNamespace(), state)
    assert ([1, 2], [3, 4], 2, 4) == (
        state.prompt_token_ids,
        state.output_token_ids,
        state.num_prompt_tokens,
        state.num_tokens,
    )


def test_the_grammar_of_a_continued_output_is_advanced() -> None:
    """Over the tokens that are there; what the grammar rejects fails the request."""
    from vllm.v1.structured_output import StructuredOutputManager

    accepted: list[list[int]] = []

    class Grammar:
        def accept_tokens(self, request_id: str, token_ids: list[int]) -> bool:
            accepted.append(token_ids)
            return len(accepted) == 1

    manager = SimpleNamespace(backend=SimpleNamespace(compile_grammar=lambda *_, **__: Grammar()))
    request = _continued_request(has_penalties=False)
    request.structured_output_request = SimpleNamespace(structured_output_key=("regex", "a"))
    StructuredOutputManager._create_grammar(manager, request)
    with pytest.raises(ValueError, match="form"):
        StructuredOutputManager._create_grammar(manager, request)
    assert [[3, 4], [3, 4]] == accepted
