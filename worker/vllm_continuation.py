"""Teaches vLLM to go on with an output that another worker began. A plugin: vLLM runs ``install`` in its processes.

To vLLM such an output is the end of the prompt. Two things it would then get wrong, and is told by the request's
``extra_args`` to get right:

- a constraint begins anew behind the prompt: its grammar is advanced over the tokens that are there already;
- presence and frequency penalties count output alone: where one is asked for, the request enters the scheduler with
  those tokens as output, in the state of one that was preempted and whose turn has come again.

vLLM promises none of this. tests/contract/test_vllm_hooks.py pins what is relied on.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

PLUGIN = "tidegate-continuation"
"""Under this name pyproject.toml has ``install``."""
CONTINUED_TOKENS = "tidegate_continued_tokens"
"""How many tokens at the end of the prompt are output."""
AS_OUTPUT = "tidegate_as_output"
"""Whether the scheduler has to take them for output, too; token limits then count them."""


def continuation_arguments(continued_tokens: int, *, has_penalties: bool) -> dict[str, int]:
    """The ``extra_args`` of a request whose prompt ends with so many tokens of output."""
    return {CONTINUED_TOKENS: continued_tokens, AS_OUTPUT: int(has_penalties)}


def install() -> None:
    """Patch vLLM in this process. A second time does nothing."""
    # Not before vLLM asks for it: the worker reads the names above without vLLM.
    from vllm.v1.core.sched.output import NewRequestData  # noqa: PLC0415
    from vllm.v1.request import Request  # noqa: PLC0415
    from vllm.v1.structured_output import StructuredOutputManager  # noqa: PLC0415
    from vllm.v1.worker.gpu_input_batch import InputBatch  # noqa: PLC0415

    if hasattr(StructuredOutputManager, "tidegate_continues"):
        return
    StructuredOutputManager.tidegate_continues = True
    create_grammar = StructuredOutputManager._create_grammar  # noqa: SLF001 - there is no public way in
    StructuredOutputManager._create_grammar = _advancing(create_grammar)  # noqa: SLF001
    Request.from_engine_core_request = classmethod(_with_output(Request.from_engine_core_request.__func__))
    NewRequestData.from_request = classmethod(_with_whole_prompt(NewRequestData.from_request.__func__))
    InputBatch.add_request = _splitting(InputBatch.add_request)


def _extra(sampling_params: Any, name: str) -> int:
    return int(((sampling_params and sampling_params.extra_args) or {}).get(name, 0))


def _advancing(create_grammar: Any) -> Any:
    @wraps(create_grammar)
    def created(self: Any, request: Any) -> Any:
        grammar = create_grammar(self, request)
        count = _extra(request.sampling_params, CONTINUED_TOKENS)
        # An exception fails this request alone: it travels in the grammar's future.
        if count and not grammar.accept_tokens(request.request_id, list(request.all_token_ids)[-count:]):
            raise ValueError("the output to continue does not have the form asked for")
        return grammar

    return created


def _with_output(from_engine_core_request: Any) -> Any:
    @wraps(from_engine_core_request)
    def converted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        request = from_engine_core_request(cls, *args, **kwargs)
        count = _extra(request.sampling_params, CONTINUED_TOKENS)
        if count and _extra(request.sampling_params, AS_OUTPUT):
            request._output_token_ids.extend(request.prompt_token_ids[-count:])  # noqa: SLF001
            request.prompt_token_ids = request.prompt_token_ids[:-count]
            request.num_prompt_tokens -= count
            # The scheduler expects cached output of none but those that it has preempted.
            request.num_preemptions = 1
            request.prefill_stats.set(request.num_tokens, 0, 0)
        return request

    return converted


def _with_whole_prompt(from_request: Any) -> Any:
    """The model runner of vLLM's first kind knows no new request with output. The second kind is given all tokens."""

    @wraps(from_request)
    def made(cls: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        data = from_request(cls, request, *args, **kwargs)
        if data.prefill_token_ids is None and _extra(request.sampling_params, AS_OUTPUT):
            data.prompt_token_ids = list(request.all_token_ids)
        return data

    return made


def _splitting(add_request: Any) -> Any:
    """Gives a new request of the first model runner its output, from the end of its prompt."""

    @wraps(add_request)
    def added(self: Any, request: Any) -> Any:
        if _extra(request.sampling_params, AS_OUTPUT) and not request.output_token_ids:
            count = _extra(request.sampling_params, CONTINUED_TOKENS)
            request.output_token_ids.extend(request.prompt_token_ids[-count:])
            request.prompt_token_ids = request.prompt_token_ids[:-count]
            request.num_prompt_tokens -= count
        return add_request(self, request)

    return added
