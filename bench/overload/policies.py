"""The policies side by side, each with an engine of its own and the same trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.overload.doors import Bare, Door, Line, cap, oracle
from bench.overload.score import Answer, EngineFigures, Score, score
from bench.overload.tidegate import Tidegate
from bench.overload.trace import Arrival, Trace
from bench.overload.virtual import Agenda, VirtualEngine
from worker.sim_profile import SimProfile

BARE, RESERVE_CAP, TIDEGATE, THREE_GATEWAYS, ORACLE = (
    "bare",
    "reserve-cap",
    "Tidegate",
    "Tidegate, 3 gateways",
    "oracle",
)


def _line(expect: Callable[[Arrival], int]) -> Callable[[Agenda, VirtualEngine, SimProfile], Door]:
    return partial(Line, expect=expect)


_DOORS: dict[str, Callable[[Agenda, VirtualEngine, SimProfile], Door]] = {
    BARE: lambda agenda, engine, _: Bare(agenda, engine),
    RESERVE_CAP: _line(cap),
    TIDEGATE: Tidegate,
    THREE_GATEWAYS: partial(Tidegate, gateways=3),
    ORACLE: _line(oracle),
}
POLICIES = tuple(_DOORS)


def run(policy: str, trace: Trace, profile: SimProfile) -> Score:
    """Send ``trace`` through ``policy`` into an engine of that ``profile``, in virtual time."""
    given, figures = answers(policy, trace, profile)
    return score(policy, given, window_s=trace.window_s, engine=figures)


def answers(policy: str, trace: Trace, profile: SimProfile) -> tuple[list[Answer], EngineFigures]:
    """What became of each arrival in such a run, and of the engine."""
    agenda = Agenda()
    engine = VirtualEngine(profile, agenda)
    door = _DOORS[policy](agenda, engine, profile)
    given = [Answer(arrival_s=arrival.arrival_s) for arrival in trace.arrivals]
    for arrival, answer in zip(trace.arrivals, given, strict=True):
        agenda.at(arrival.arrival_s, partial(door.arrive, arrival, answer))
    agenda.run()
    return given, EngineFigures(preemptions=engine.load().preemptions, highest_kv_use=engine.highest_kv_use)
