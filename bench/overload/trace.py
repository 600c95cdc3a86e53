"""Traces: who arrives when, with how long a prompt, and how long the output will turn out to be. Open loop.

An arrival does not wait for anything that a server does, and latency counts from it: what piles up in front of a slow
server is part of the measurement ("coordinated omission" is the name of the mistake of leaving it out).
"""

from __future__ import annotations

import csv
import math
import random
from dataclasses import dataclass
from pathlib import Path

MAX_OUTPUT_TOKENS = 1_024  # what every request asks for; the true length is known to no policy but the oracle

_PROMPT_MEDIAN, _PROMPT_SIGMA, _PROMPT_RANGE = 400, 0.8, (16, 2_048)
_OUTPUT_MEDIAN, _OUTPUT_SIGMA, _OUTPUT_RANGE = 200, 0.9, (8, MAX_OUTPUT_TOKENS)
_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "tenant", "criticality")
_CRITICALITIES = ("CRITICAL_PLUS", "CRITICAL", "SHEDDABLE_PLUS", "SHEDDABLE")

# A burst has this many times the rate of the calm between bursts; states last so long on average.
_BURST_FACTOR, _BURST_S, _CALM_S = 6.0, 1.0, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request. ``arrival_s`` counts from the trace's beginning; ``output_tokens`` is the true length."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    tenant: str = ""
    criticality: str = "CRITICAL"

    def __post_init__(self) -> None:
        if self.arrival_s < 0 or self.prompt_tokens < 1:
            raise ValueError("arrival_s is at least 0 and prompt_tokens at least 1")
        if not 1 <= self.output_tokens <= MAX_OUTPUT_TOKENS:
            raise ValueError(f"output_tokens goes from 1 to {MAX_OUTPUT_TOKENS}")
        if self.criticality not in _CRITICALITIES:
            raise ValueError(f"criticality is one of {', '.join(_CRITICALITIES)}, not {self.criticality!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Arrivals in order, and the window over which goodput counts."""

    name: str
    window_s: float
    arrivals: tuple[Arrival, ...]


def poisson(*, seed: int, rate: float, duration_s: float) -> Trace:
    """Requests at random, ``rate`` a second: the trace that was measured on an H200, number for number."""
    rng = random.Random(seed)
    arrivals: list[Arrival] = []
    now = 0.0
    while now < duration_s:
        now += rng.expovariate(rate)
        arrivals.append(_arrival(rng, now))
    return Trace(name=f"poisson {rate:g}/s seed {seed}", window_s=duration_s, arrivals=tuple(arrivals))


def bursty(*, seed: int, rate: float, duration_s: float) -> Trace:
    """The same mean rate in bursts: a Poisson process that changes at random between calm and six times as much."""
    rng = random.Random(seed)
    burst_rate = rate * _BURST_FACTOR * (_BURST_S + _CALM_S) / (_BURST_FACTOR * _BURST_S + _CALM_S)
    arrivals: list[Arrival] = []
    now, is_burst, changes_at = 0.0, False, rng.expovariate(1 / _CALM_S)
    while now < duration_s:
        # In calm only one candidate in six comes.
        now += rng.expovariate(burst_rate)
        while now >= changes_at:
            is_burst = not is_burst
            changes_at += rng.expovariate(1 / (_BURST_S if is_burst else _CALM_S))
        if is_burst or rng.random() * _BURST_FACTOR < 1:
            arrivals.append(_arrival(rng, now))
    return Trace(name=f"bursty {rate:g}/s seed {seed}", window_s=duration_s, arrivals=tuple(arrivals))


def read_csv(path: Path) -> Trace:
    """A trace from a file with the columns of ``Arrival``; the last two may be left out. Raises ``ValueError``."""
    arrivals: list[Arrival] = []
    with path.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        unknown = set(rows.fieldnames or ()) ^ set(_COLUMNS)
        if unknown - {"tenant", "criticality"}:
            raise ValueError(f"{path}: the columns are {','.join(_COLUMNS)}")
        for row in rows:
            try:
                arrivals.append(
                    Arrival(
                        arrival_s=float(row["arrival_s"]),
                        prompt_tokens=int(row["prompt_tokens"]),
                        output_tokens=int(row["output_tokens"]),
                        tenant=row.get("tenant") or "",
                        criticality=row.get("criticality") or "CRITICAL",
                    )
                )
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: {error}") from error
    if not arrivals:
        raise ValueError(f"{path} holds no arrival")
    arrivals.sort(key=lambda arrival: arrival.arrival_s)
    return Trace(name=path.name, window_s=max(1.0, arrivals[-1].arrival_s), arrivals=tuple(arrivals))


def _arrival(rng: random.Random, arrival_s: float) -> Arrival:
    return Arrival(
        arrival_s=arrival_s,
        prompt_tokens=_length(rng, _PROMPT_MEDIAN, _PROMPT_SIGMA, _PROMPT_RANGE),
        output_tokens=_length(rng, _OUTPUT_MEDIAN, _OUTPUT_SIGMA, _OUTPUT_RANGE),
    )


def _length(rng: random.Random, median: int, sigma: float, bounds: tuple[int, int]) -> int:
    least, most = bounds
    return min(most, max(least, int(rng.lognormvariate(math.log(median), sigma))))
