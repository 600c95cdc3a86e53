from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from typing import cast

import pytest

from gateway.errors import RequestQuarantinedError
from gateway.policy.demand import Demand, Fit
from gateway.policy.outcomes import Outcome
from gateway.policy.quarantine import MEMORY_S, Suspect
from gateway.workers.client import WorkerClient
from gateway.workers.errors import WorkerCallError
from gateway.workers.fleet import Fleet
from tests.fakes.clock import ManualClock
from tests.fakes.served_models import served_model
from tests.fakes.worker_loads import worker_load


class Unconnected:
    """As much of a client as a fleet needs."""

    target = "worker:1"


async def test_a_job_is_not_sent_to_a_worker_that_was_lost_after_it_was_leased() -> None:
    """Nobody would tell the job that it waits in vain; nor is it what the worker died of."""
    fleet, model = Fleet(random.Random(0), ManualClock()), served_model()
    seat = fleet.join(cast("WorkerClient", Unconnected()), model, worker_load(instance_id=1))
    lease = fleet.lease(model, Demand(prompt_tokens=1, need_tokens=1, digest=b"d"), exclude=())
    assert lease is not None
    fleet.leave(seat)
    with pytest.raises(WorkerCallError, match="no sign of life"), lease:
        pytest.fail("the job was sent")
    lease.close(Outcome.FAILED, is_lost=True)
    assert not len(fleet.quarantine)


def test_a_job_that_was_not_admitted_is_no_suspect() -> None:
    """Its worker was dead when the job came, or would not take it: another worker that it was on died of others."""
    fleet, model = Fleet(random.Random(0), ManualClock()), served_model()
    fleet.join(cast("WorkerClient", Unconnected()), model, worker_load(instance_id=1))
    for is_admitted in (False, True):
        lease = fleet.lease(model, Demand(prompt_tokens=1, need_tokens=1, digest=b"d"), exclude=())
        assert lease is not None
        if is_admitted:
            lease.admit(7)
        lease.close(Outcome.FAILED, is_lost=True, reason="ENGINE_DEAD")
        assert is_admitted == (b"d" in fleet.quarantine)


@pytest.mark.parametrize("is_silent", [True, False])
async def test_who_was_on_a_worker_that_only_fell_silent_is_suspected_but_faintly(*, is_silent: bool) -> None:
    """It may come back. Whoever is told that its connection broke, before his own call is, had no token either."""
    fleet, model = Fleet(random.Random(0), ManualClock()), served_model()
    seat = fleet.join(cast("WorkerClient", Unconnected()), model, worker_load(instance_id=1))
    demand = Demand(prompt_tokens=1, need_tokens=1, digest=b"d")
    lease = fleet.lease(model, demand, exclude=())
    assert lease is not None

    async def job() -> None:
        with lease:
            lease.admit(7)
            fleet.leave(seat, is_silent=is_silent)
            await asyncio.Event().wait()

    with pytest.raises(WorkerCallError, match="no sign of life"):
        await job()
    lease.close(Outcome.FAILED, is_lost=True)
    before = [
        Suspect(digest=b"d", instance_id=instance_id, remaining_s=MEMORY_S, is_silent=True, is_faint=instance_id == 3)
        for instance_id in (2, 3)
    ]
    fleet.quarantine.add(before, 1_000.0)
    assert 3 == len(fleet.quarantine)
    with nullcontext() if is_silent else pytest.raises(RequestQuarantinedError):
        fleet.refuse_poison(demand)


async def test_a_worker_that_drains_tells_its_last_jobs_itself_what_became_of_them() -> None:
    """Its reports end over another connection, perhaps before the word comes that the engine died."""
    fleet, model = Fleet(random.Random(0), ManualClock()), served_model()
    seat = fleet.join(cast("WorkerClient", Unconnected()), model, worker_load(instance_id=1))
    lease = fleet.lease(model, Demand(prompt_tokens=1, need_tokens=1, digest=b"d"), exclude=())
    assert lease is not None
    with lease:
        lease.admit(7)
        fleet.report(seat, worker_load(instance_id=1, is_draining=True))
        fleet.leave(seat)
        for _ in range(3):  # in which it would have been given up
            await asyncio.sleep(0)
    lease.close(Outcome.FAILED, is_lost=True, reason="ENGINE_DEAD")
    assert b"d" in fleet.quarantine


def test_a_worker_that_is_named_no_more_is_forgotten() -> None:
    """Addresses come and go with the pods; what is kept is the word of a model whose last worker went."""
    fleet, model = Fleet(random.Random(0), ManualClock()), served_model()
    for number in range(100):
        client = Unconnected()
        client.target = f"worker:{number}"
        fleet.leave(fleet.join(cast("WorkerClient", client), model, worker_load()))
        fleet.forget(client.target)
        assert {"m": model} == fleet.models
    assert (0, 1) == (len(fleet._standings), len(fleet._last_models))


@pytest.mark.parametrize(("reserved_blocks", "has_room"), [(60, True), (70, False)])
def test_room_that_is_left_for_others_may_be_on_another_worker(*, reserved_blocks: int, has_room: bool) -> None:
    """All but what requests hold on average: 560 of 640 tokens are enough to leave 480, and 400 of 480 are not."""
    clock, model = ManualClock(), served_model()
    fleet = Fleet(random.Random(0), clock)
    for number, reserved in enumerate((80, reserved_blocks)):
        client = Unconnected()
        client.target = f"worker:{number}"
        load = worker_load(received_at=clock(), reserved_blocks=reserved)
        fleet.join(cast("WorkerClient", client), model, load)
    fit = Fit(expected_tokens=320, spare_tokens=480, mean_tokens=80)
    job = Demand(prompt_tokens=1, need_tokens=1)
    assert has_room == fleet.has_room(model, job, fit, exclude=())
    assert has_room == (fleet.lease(model, job, fit, exclude=()) is not None)
