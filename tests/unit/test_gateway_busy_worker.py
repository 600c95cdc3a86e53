"""A worker that computes a long prompt for half a minute, by a clock of the test, beside an idle one."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from gateway.policy.demand import Demand
from gateway.workers.client import WorkerClient
from gateway.workers.errors import WorkerCallError
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease, Seat
from tests.fakes.clock import ManualClock
from tests.fakes.served_models import served_model
from tests.fakes.worker_loads import worker_load

PREFILL_S, RATE = 30.0, 1_000.0


class Unconnected:
    """As much of a client as a fleet needs."""

    def __init__(self, target: str) -> None:
        self.target = target


def fleet_at_work() -> tuple[Fleet, ManualClock, Seat, Lease]:
    """Two workers that have been there for a minute, and a job on the first, whose prompt takes half a minute."""
    clock = ManualClock(0.0)
    fleet = Fleet(random.Random(0), clock)
    model = served_model(can_continue=True)
    seats = [fleet.join(cast("WorkerClient", Unconnected(name)), model, worker_load()) for name in ("busy", "idle")]
    clock.now_s = 60.0
    for seat in seats:
        fleet.report(seat, worker_load(received_at=60.0, prefill_tokens_per_s=RATE))
    lease = fleet.lease(model, Demand(prompt_tokens=1, need_tokens=1, digest=b"d"), exclude=("idle",))
    assert lease is not None
    return fleet, clock, seats[0], lease


def pass_second(fleet: Fleet, clock: ManualClock, seat: Seat, *, step_age_s: float, pending: int) -> None:
    """The next report of both workers."""
    clock.now_s += 1
    for other in fleet.seats:
        load = worker_load(received_at=clock.now_s, prefill_tokens_per_s=RATE)
        if other is seat:
            load = worker_load(
                received_at=clock.now_s,
                prefill_tokens_per_s=RATE,
                engine_step_age_s=step_age_s,
                pending_prefill_tokens=pending,
                running_requests=1,
            )
        fleet.report(other, load)


async def test_a_worker_in_a_prefill_of_half_a_minute_is_never_left_out() -> None:
    """Its engine makes no step for thirty seconds, and owes none before."""
    fleet, clock, seat, lease = fleet_at_work()
    with lease:
        for second in range(int(PREFILL_S)):
            pass_second(fleet, clock, seat, step_age_s=second + 1, pending=round(PREFILL_S * RATE))
            assert not seat.is_out(clock.now_s)
    assert {0} == {breaker.opened_count for breaker in seat.standing.breakers.values()}


async def test_a_worker_that_owes_a_step_loses_its_jobs() -> None:
    """The same silence of the engine, with a prompt that would take a second."""
    fleet, clock, seat, lease = fleet_at_work()

    async def job() -> None:
        with lease:
            for second in range(7):
                pass_second(fleet, clock, seat, step_age_s=second + 1, pending=round(RATE))
            assert seat.is_out(clock.now_s)
            await asyncio.Event().wait()

    with pytest.raises(WorkerCallError, match="no sign of life"):
        await job()
