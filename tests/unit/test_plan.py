from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from worker.plan.__main__ import app
from worker.plan.gpu import gpu_named, known_gpus
from worker.plan.memory import DoesNotFitError, Memory, blocks_for
from worker.plan.pace import Traffic, pace
from worker.plan.prices import costs, load_prices
from worker.plan.shape import load_shape, shape_of
from worker.sim_profile import load_profile
from worker.sim_scheduler import ScheduledRequest, Scheduler

_ROOT = Path(__file__).parents[2]
_PROFILE = load_profile("h200-llama3-8b-awq")
_LLAMA = json.loads((_ROOT / "worker/plan/models/llama3-8b-awq.json").read_text(encoding="utf-8"))
_TRAFFIC = Traffic(prompt_tokens=512, output_tokens=128, reserved_output_tokens=128)
_ARGUMENTS = ["--model", "llama3-8b-awq", "--gpu", "h200", "--prompt-tokens", "512", "--output-tokens", "128"]


def test_blocks_are_those_that_vllm_found() -> None:
    """The profile was measured with half of an H200: 31,838 blocks."""
    shape, gpu = load_shape("llama3-8b-awq"), gpu_named("h200")
    memory = Memory(utilization=0.5, block_size=16)
    assert pytest.approx(_PROFILE.total_blocks, rel=0.01) == blocks_for(memory, shape, gpu, (), tokens=640)


def test_the_profile_tells_what_it_is_of() -> None:
    """Or the planner would scale the times of the very model that was measured."""
    shape = load_shape("llama3-8b-awq")
    assert (shape.parameters, shape.weight_bytes, "h200") == (
        _PROFILE.parameters,
        _PROFILE.weight_bytes,
        _PROFILE.gpu,
    )


@pytest.mark.parametrize("requests_per_s", [2, 10, 20, 27])
def test_times_are_those_of_the_simulated_engine(requests_per_s: float) -> None:
    """The formula against the scheduler step by step, with requests that come at random."""
    found = pace(_PROFILE.timing, _TRAFFIC, requests_per_s, max_batched_tokens=_PROFILE.max_batched_tokens)
    assert found is not None
    assert pytest.approx(_simulated(requests_per_s), rel=1 / 6) == (found.ttft_s, found.itl_s)


def test_weights_are_as_large_as_their_files(tmp_path: Path) -> None:
    """Where there are files; a shape alone is an estimate."""
    (tmp_path / "config.json").write_text(json.dumps(_LLAMA), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    shape = load_shape(str(tmp_path))
    assert (1000, True, 131072) == (shape.weight_bytes, shape.are_weights_measured, shape.kv_bytes_per_token)


@pytest.mark.parametrize("key", ["num_local_experts", "n_routed_experts", "kv_lora_rank"])
def test_a_model_of_another_kind_is_refused(key: str) -> None:
    """Its figures would be wrong without a sign of it."""
    with pytest.raises(ValueError, match=key):
        shape_of({**_LLAMA, key: 8}, name="m")


def test_a_model_that_does_not_fit_says_what_would() -> None:
    """Seventy billion parameters in 16 bits, on one GPU of 80 GB."""
    config = {**_LLAMA, "num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64}
    config |= {"intermediate_size": 28672, "quantization_config": None}
    memory, shape = Memory(utilization=0.9, block_size=16), shape_of(config, name="llama-70b")
    with pytest.raises(DoesNotFitError, match=r"b200, 2 x h100 \(tensor parallel\); or weights of at most 71.3 GB"):
        blocks_for(memory, shape, gpu_named("h100"), known_gpus(), tokens=8192)


def test_costs_are_hours_of_gpus_and_tokens_of_apis() -> None:
    """Of the example's made-up prices: a GPU for 1, a million tokens for 0.1."""
    prices = load_prices(_ROOT / "examples/prices.toml")
    ours, api = costs(prices, _TRAFFIC, 10.0, gpu="h200", gpu_count=2)
    assert [2.0, 2 / (36_000 * 128 / 1e6)] == pytest.approx([ours.per_hour, ours.per_million_output_tokens])
    assert [36_000 * 640 / 1e6 * 0.1, 0.1] == pytest.approx([api.per_hour, api.per_million_tokens])


def test_a_price_is_no_text(tmp_path: Path) -> None:
    """The file is somebody's own."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"currency": "EUR", "gpu_per_hour": {"h200": "two"}}), encoding="utf-8")
    with pytest.raises(ValueError, match="numbers"):
        load_prices(path)


def test_json_holds_what_the_text_says() -> None:
    """One object, with the assumptions."""
    ended = CliRunner().invoke(app, [*_ARGUMENTS, "--rps", "100", "--json"])
    plan = json.loads(ended.stdout)
    assert (0, 4, "time", 40) == (
        ended.exit_code,
        plan["replicas"],
        plan["replica"]["bound"],
        plan["replica"]["request_blocks"],
    )
    text = CliRunner().invoke(app, [*_ARGUMENTS, "--rps", "100"]).stdout
    assert text.startswith("4 x h200 for 100 requests/s")
    assert all(line in text for line in plan["assumptions"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--rps", "1", "--max-ttft-ms", "1"], 3),
        (["--rps", "1", "--memory-share", "0.05"], 3),
        (["--rps", "1", "--gpu", "h100"], 2),
        (["--rps", "1", "--model", "nothing"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    """3 for what cannot be, 2 for what cannot be asked."""
    assert code == CliRunner().invoke(app, [*_ARGUMENTS, *arguments]).exit_code


def test_what_was_not_measured_is_said() -> None:
    """Another GPU by its name, with the times of the one that there is."""
    arguments = [*_ARGUMENTS, "--rps", "1", "--gpu", "h100", "--profile", "h200-llama3-8b-awq"]
    assert "NOT MEASURED on a h100" in CliRunner().invoke(app, arguments).stdout


def _simulated(requests_per_s: float, *, requests: int = 300) -> tuple[float, float]:
    """Mean TTFT and ITL of the middle half, in seconds of a virtual clock."""
    rng, scheduler, fresh_tokens = random.Random(1), Scheduler(_PROFILE), count()
    times: dict[ScheduledRequest, list[float]] = {}
    arrived_at = now = 0.0
    for _ in range(requests):
        arrived_at += rng.expovariate(requests_per_s)
        request = ScheduledRequest(
            tokens=[next(fresh_tokens) for _ in range(_TRAFFIC.prompt_tokens)],
            prompt_tokens=_TRAFFIC.prompt_tokens,
            ready_at=arrived_at + _PROFILE.timing.request_overhead_s,
        )
        times[request] = [arrived_at]
        scheduler.add(request)
    while (ready_at := scheduler.next_ready_at) is not None or scheduler.running_requests:
        step = scheduler.plan(now)
        if not step.chunks and ready_at is not None:
            now = max(now, ready_at)
            continue
        now += _PROFILE.timing.step_s(prefill_tokens=step.prefill_tokens, decode_requests=step.decode_requests)
        for request in scheduler.commit(step):
            times[request].append(now)
            request.tokens.append(0)
            if len(times[request]) > _TRAFFIC.output_tokens:
                scheduler.remove(request)
    middle = list(times.values())[requests // 4 : -requests // 4]
    return (
        fmean(first - arrived for arrived, first, *_ in middle),
        fmean((token_times[-1] - token_times[1]) / (_TRAFFIC.output_tokens - 1) for token_times in middle),
    )
