"""What the measurements say: the figures of each subject, medians over turns, and whether the goals are met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median

from bench.data_plane.experiment import Measurement
from bench.data_plane.scenarios import SCENARIOS

_STREAMS = {scenario.name: scenario.streams for scenario in SCENARIOS}
TIDEGATE = "tidegate-http2"
# 2,000 streams of 50 tokens a second, less what begins and ends.
_PACE_PER_S = 95_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One scenario on one subject. None where it was not measured or failed."""

    cpu_us_per_message: float | None
    cpu_us_per_request: float | None
    lowest_cpu_us_per_request: float | None
    """Of the cheapest turn: what neighbours on the processor take makes turns dearer, and never cheaper."""
    cores: float | None
    messages_per_s: float | None
    idle_stream_bytes: float | None
    base_mib: float | None
    ttft_p50_us: float | None
    ttft_p99_us: float | None
    latency_p50_us: float | None
    latency_p99_us: float | None
    others_share: float
    failed: int


_NOTHING = Figures(
    **dict.fromkeys(f.name for f in fields(Figures) if f.name not in {"others_share", "failed"}),
    others_share=0.0,
    failed=0,
)

Table = dict[tuple[str, str], Figures]
"""By subject and scenario."""


def tabulate(measurements: Sequence[Measurement]) -> Table:
    """Medians over rounds and turns."""
    keys = dict.fromkeys((m.subject, m.scenario) for m in measurements)
    return {key: _figures([m for m in measurements if (m.subject, m.scenario) == key]) for key in keys}


def _figures(rounds: Sequence[Measurement]) -> Figures:
    good = [m for m in rounds if not m.failed]
    return Figures(
        cpu_us_per_message=_median(good, lambda m: _quotient(m.gateway_cpu_s, m.messages, 1e6)),
        cpu_us_per_request=_median(good, _cpu_us_per_request),
        lowest_cpu_us_per_request=min(_values(good, _cpu_us_per_request), default=None),
        cores=_median(good, lambda m: _quotient(m.gateway_cpu_s, m.wall_s, 1)),
        messages_per_s=_median(good, lambda m: _quotient(m.messages, m.wall_s, 1)),
        idle_stream_bytes=_median(good, _stream_bytes),
        base_mib=_median(good, lambda m: _quotient(m.base_pss_bytes, 1, 2**-20)),
        ttft_p50_us=_median(good, lambda m: m.ttft_p50_us),
        ttft_p99_us=_median(good, lambda m: m.ttft_p99_us),
        latency_p50_us=_median(good, lambda m: m.latency_p50_us),
        latency_p99_us=_median(good, lambda m: m.latency_p99_us),
        others_share=median(m.others_share for m in rounds),
        failed=sum(m.failed for m in rounds),
    )


def _median(rounds: Sequence[Measurement], value: Callable[[Measurement], float | None]) -> float | None:
    values = _values(rounds, value)
    return median(values) if values else None


def _values(rounds: Sequence[Measurement], value: Callable[[Measurement], float | None]) -> list[float]:
    return [found for m in rounds if (found := value(m)) is not None]


def _cpu_us_per_request(measurement: Measurement) -> float | None:
    return _quotient(measurement.gateway_cpu_s, measurement.requests, 1e6)


def _quotient(amount: float | None, count: float, scale: float) -> float | None:
    return None if amount is None or not count else amount / count * scale


def _stream_bytes(measurement: Measurement) -> float | None:
    if measurement.pss_bytes is None or measurement.base_pss_bytes is None:
        return None
    return (measurement.pss_bytes - measurement.base_pss_bytes) / _STREAMS[measurement.scenario]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound, and what was measured; None where the run did not tell."""

    what: str
    bound: str
    measured: float | None
    is_met: bool | None


def goals(table: Table) -> list[Goal]:
    """What the http2 plane is built to reach."""
    found = []
    for peer, title, factor in (("envoy", "Envoy", 1.1), ("smg", "SMG", 0.6)):
        for scenario in ("paced-200", "paced-2000", "flood"):
            ours, theirs = (table.get((name, scenario), _NOTHING).cpu_us_per_message for name in (TIDEGATE, peer))
            ratio = ours / theirs if ours is not None and theirs else None
            found.append(_at_most(f"CPU per relayed message over {title}'s, {scenario}", ratio, factor))
    request, full, idle = (table.get((TIDEGATE, name), _NOTHING) for name in ("sixteen", "paced-2000", "idle"))
    ours, theirs = (table.get((name, "one"), _NOTHING).ttft_p50_us for name in (TIDEGATE, "direct"))
    added_us = ours - theirs if ours is not None and theirs is not None else None
    # Cores that do not keep pace say nothing of what keeping it would cost.
    keeps_pace = full.messages_per_s is not None and full.messages_per_s >= _PACE_PER_S
    return [
        *found,
        _at_most("CPU per request, us", request.cpu_us_per_request, 250),
        _at_least("messages/s of 2,000 streams of 50 tokens/s", full.messages_per_s, _PACE_PER_S),
        _at_most("cores for 2,000 streams of 50 tokens/s", full.cores if keeps_pace else None, 0.6),
        _at_most("TTFT p50 over direct, us", added_us, 450),
        _at_most("bytes per idle stream of 10,000", idle.idle_stream_bytes, 10_000),
    ]


def _at_most(what: str, measured: float | None, bound: float) -> Goal:
    return Goal(
        what=what,
        bound=f"<= {bound:,g}",
        measured=measured,
        is_met=None if measured is None else measured <= bound,
    )


def _at_least(what: str, measured: float | None, bound: float) -> Goal:
    return Goal(
        what=what,
        bound=f">= {bound:,g}",
        measured=measured,
        is_met=None if measured is None else measured >= bound,
    )


def as_json(measurements: Sequence[Measurement], versions: dict[str, str]) -> dict[str, object]:
    """Everything, for programs."""
    table = tabulate(measurements)
    return {
        "versions": versions,
        "goals": [asdict(goal) for goal in goals(table)],
        "figures": [
            {"subject": subject, "scenario": scenario, **asdict(figures)}
            for (subject, scenario), figures in table.items()
        ],
        "measurements": [asdict(measurement) for measurement in measurements],
    }
