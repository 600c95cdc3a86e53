"""Fit a profile's step times to its measurements: ``python -m worker.sim_fit PROFILE`` prints the fitted profile.

Each measurement is replayed on the sim's own scheduler with a virtual clock. The first guess is arithmetic; a pattern
search then lowers the sum of the fourth powers of all relative errors: one figure far off weighs more than many nearly
right, yet does not draw all others after it as it would if only the largest error counted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import count, pairwise, product
from statistics import fmean

from worker.sim_profile import Measurement, SimProfile, StepTiming, dump_profile, load_profile
from worker.sim_scheduler import ScheduledRequest, Scheduler

# The client that measured made its prompts and submitted them one after the other, so the first one ran alone.
_SUBMISSION_INTERVAL_S = 0.0003

_FITTED = ("base_s", "prefill_token_s", "decode_request_s", "request_overhead_s")
_SMALLEST_STEP = 0.005  # relative
_GOOD_ENOUGH = 1e-7  # badness; nothing is off by 2 %
_WORTHWHILE = 0.95  # of the badness before; the valleys of the search are long and flat


@dataclass(slots=True, eq=False, kw_only=True)
class _Run:
    request: ScheduledRequest
    submitted_at: float
    token_times: list[float]


def replay(profile: SimProfile, row: Measurement) -> Measurement:
    """What the sim would measure where the real engine measured ``row``, in virtual time."""
    scheduler = Scheduler(profile)
    fresh_tokens = count()  # no prompt shares a prefix with another
    ttfts: list[float] = []
    gaps: list[float] = []
    now = 0.0
    for _ in range(row.rounds):
        runs: dict[ScheduledRequest, _Run] = {}
        for index in range(row.concurrency):
            submitted_at = now + index * _SUBMISSION_INTERVAL_S
            request = ScheduledRequest(
                tokens=[next(fresh_tokens) for _ in range(row.prompt_tokens)],
                prompt_tokens=row.prompt_tokens,
                ready_at=submitted_at + profile.timing.request_overhead_s,
            )
            scheduler.add(request)
            runs[request] = _Run(request=request, submitted_at=submitted_at, token_times=[])
        now = _run_all(scheduler, profile.timing, runs, row.output_tokens, now)
        ttfts += [run.token_times[0] - run.submitted_at for run in runs.values()]
        gaps += [later - earlier for run in runs.values() for earlier, later in pairwise(run.token_times)]
    tokens = row.rounds * row.concurrency * row.output_tokens
    return replace(row, ttft_ms=_median(ttfts) * 1e3, itl_ms=_median(gaps) * 1e3, tokens_per_s=tokens / now)


def errors(profile: SimProfile) -> list[float]:
    """Relative errors of all figures of all measurements."""
    return [
        simulated / measured - 1
        for row in profile.measured
        for simulated, measured in zip(_figures(replay(profile, row)), _figures(row), strict=True)
    ]


def fit(profile: SimProfile) -> SimProfile:
    """The profile with the step times that fit its measurements best. It needs at least two concurrencies.

    ``mixed_step_s`` stays as it is: all requests of a measurement come at once, so that few of its steps are mixed.
    """
    mixed_step_s = profile.timing.mixed_step_s
    best = replace(profile, timing=replace(_first_guess(profile.measured), mixed_step_s=mixed_step_s))
    lowest = _badness(best)
    step = 0.08
    while step > _SMALLEST_STEP and lowest > _GOOD_ENOUGH:
        before = lowest
        for name, factor in product(_FITTED, (1 + step, 1 - step)):
            trial = replace(best, timing=replace(best.timing, **{name: getattr(best.timing, name) * factor}))
            badness = _badness(trial)
            if badness < lowest:
                best, lowest = trial, badness
        if lowest > _WORTHWHILE * before:
            step /= 2
    return best


def _run_all(
    scheduler: Scheduler, timing: StepTiming, runs: dict[ScheduledRequest, _Run], output_tokens: int, now: float
) -> float:
    """Step until all ``runs`` have their tokens; returns the time then."""
    while (ready_at := scheduler.next_ready_at) is not None or scheduler.running_requests:
        step = scheduler.plan(now)
        if not step.chunks and ready_at is not None:
            now = max(now, ready_at)
            continue
        now += timing.step_s(prefill_tokens=step.prefill_tokens, decode_requests=step.decode_requests)
        for request in scheduler.commit(step):
            times = runs[request].token_times
            times.append(now)
            request.tokens.append(0)
            if len(times) == output_tokens:
                scheduler.remove(request)
    return now


def _first_guess(measured: tuple[Measurement, ...]) -> StepTiming:
    """The times that follow from each figure's main cause."""
    mean_load = fmean(row.concurrency for row in measured)
    mean_itl_s = fmean(row.itl_ms / 1e3 for row in measured)
    # ITL = base + decode x concurrency, by least squares.
    decode_request_s = sum((row.concurrency - mean_load) * (row.itl_ms / 1e3 - mean_itl_s) for row in measured) / sum(
        (row.concurrency - mean_load) ** 2 for row in measured
    )
    base_s = mean_itl_s - decode_request_s * mean_load
    # What a round takes beyond its decode steps went into its prompts.
    largest = max(measured, key=lambda row: row.concurrency)
    round_s = largest.concurrency * largest.output_tokens / largest.tokens_per_s
    decode_s = (largest.output_tokens - 1) * largest.itl_ms / 1e3
    prefill_token_s = (round_s - decode_s) / (largest.concurrency * largest.prompt_tokens)
    # What the first token of a lone request takes beyond its one step went into getting there.
    smallest = min(measured, key=lambda row: row.concurrency)
    overhead_s = max(0.0, smallest.ttft_ms / 1e3 - base_s - smallest.prompt_tokens * prefill_token_s)
    return StepTiming(
        base_s=base_s,
        prefill_token_s=prefill_token_s,
        decode_request_s=decode_request_s,
        request_overhead_s=overhead_s,
    )


def _badness(profile: SimProfile) -> float:
    return sum(error**4 for error in errors(profile))


def _figures(row: Measurement) -> tuple[float, float, float]:
    return row.ttft_ms, row.itl_ms, row.tokens_per_s


def _median(values: list[float]) -> float:
    """The upper median, as the measuring client takes it."""
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    sys.stdout.write(dump_profile(fit(load_profile(sys.argv[1]))))
