"""``tidegate bench``: bursts of equal requests against a gateway, measured as a client sees them.

The experiment is the one behind the profile of the sim engine: ``concurrency`` requests of random token ids are sent
at once, each is read to its end, and that is repeated ``rounds`` times. TTFT counts from the sending; ITL is the gap
between two deltas, divided by the tokens that the second one holds, and its median is taken over requests.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import typer

from tidegate.client.client import Client
from tidegate.client.errors import TidegateError
from tidegate.client.explain import ExitCode
from tidegate.client.retry import RetryPolicy
from tidegate.client.stats import StreamMeter, StreamStats
from tidegate.inference.v1 import generation_pb2, inference_service_pb2, model_pb2

# Low ids are often control tokens; a prompt of ordinary tokens leaves them out.
_FIRST_ORDINARY_TOKEN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Equal requests: lengths in tokens."""

    model: str
    prompt_tokens: int
    output_tokens: int
    vocabulary_size: int

    def request(self, rng: random.Random) -> inference_service_pb2.GenerateRequest:
        """One request with a prompt of its own, so that no prefix cache helps."""
        ids = [rng.randrange(_FIRST_ORDINARY_TOKEN, self.vocabulary_size) for _ in range(self.prompt_tokens)]
        return inference_service_pb2.GenerateRequest(
            model=self.model,
            token_ids=generation_pb2.TokenPrompt(ids=ids),
            sampling=generation_pb2.SamplingOptions(
                max_output_tokens=self.output_tokens, min_output_tokens=self.output_tokens, temperature=1.0
            ),
            output=generation_pb2.OutputOptions(include_token_ids=True),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstResult:
    """What one concurrency gave; times in milliseconds, medians and 99th percentiles over requests."""

    concurrency: int
    finished: int
    failed: dict[str, int]
    """Failed requests by reason."""
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    tokens_per_s: float
    """Output tokens of all requests over the wall time of all rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What the command line asks for."""

    target: str
    model: str | None
    bursts: Sequence[int]
    rounds: int
    prompt_tokens: int
    output_tokens: int
    seed: int


async def bench(options: BenchOptions, *, json_lines: bool) -> ExitCode:
    """Run the bursts one after the other and print a row each. Fails when a request of any burst failed."""
    rng = random.Random(options.seed)
    code = ExitCode.OK
    async with Client.connect(options.target, retry=RetryPolicy(max_attempts=1)) as client:
        model = await _find_model(client, options.model)
        workload = Workload(
            model=model.name,
            prompt_tokens=options.prompt_tokens,
            output_tokens=options.output_tokens,
            vocabulary_size=model.limits.vocabulary_size,
        )
        if not json_lines:
            typer.echo(f"{'at once':>8} {'TTFT p50 ms':>12} {'p99':>8} {'ITL p50 ms':>11} {'tok/s':>8}  failed")
        for concurrency in options.bursts:
            result = await run_burst(client, workload, concurrency=concurrency, rounds=options.rounds, rng=rng)
            typer.echo(_json(result) if json_lines else _row(result))
            if result.failed:
                code = ExitCode.FAILED
    return code


async def _find_model(client: Client, wanted: str | None) -> model_pb2.Model:
    models = await client.list_models()
    for model in models:
        if wanted in {None, model.name}:
            return model
    raise typer.BadParameter(f"not served here; served are: {', '.join(m.name for m in models)}", param_hint="--model")


def _json(result: BurstResult) -> str:
    """JSON has no NaN: what nothing was measured of is null."""
    return json.dumps({name: None if value != value else value for name, value in asdict(result).items()})  # noqa: PLR0124


def _row(result: BurstResult) -> str:
    failed = ", ".join(f"{count} {reason}" for reason, count in result.failed.items()) or "none"
    return (
        f"{result.concurrency:>8} {result.ttft_p50_ms:>12.1f} {result.ttft_p99_ms:>8.1f} {result.itl_p50_ms:>11.2f} "
        f"{result.tokens_per_s:>8.0f}  {failed}"
    )


async def run_burst(
    client: Client, workload: Workload, *, concurrency: int, rounds: int, rng: random.Random
) -> BurstResult:
    """Send ``concurrency`` requests at once, ``rounds`` times over; a failed request is counted, not raised."""
    stats: list[StreamStats] = []
    failed: Counter[str] = Counter()
    started_at = time.monotonic()
    for _ in range(rounds):
        requests = [workload.request(rng) for _ in range(concurrency)]
        for outcome in await asyncio.gather(*(_read(client, request) for request in requests)):
            if isinstance(outcome, StreamStats):
                stats.append(outcome)
            else:
                failed[outcome] += 1
    wall_s = time.monotonic() - started_at
    return BurstResult(
        concurrency=concurrency,
        finished=len(stats),
        failed=dict(failed),
        ttft_p50_ms=1e3 * percentile([s.ttft_s for s in stats], 0.5),
        ttft_p99_ms=1e3 * percentile([s.ttft_s for s in stats], 0.99),
        itl_p50_ms=1e3 * percentile([s.itl_p50_s for s in stats if s.itl_p50_s is not None], 0.5),
        tokens_per_s=sum(s.output_tokens for s in stats) / wall_s,
    )


async def _read(client: Client, request: inference_service_pb2.GenerateRequest) -> StreamStats | str:
    """The statistics of the call, or the reason of its failure."""
    meter = StreamMeter()
    try:
        async for event in client.generate(request, timeout_s=600.0):
            meter.observe(event)
    except TidegateError as error:
        return error.reason or error.code.name
    return meter.stats()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value with ``share`` of all at or below it; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
