from __future__ import annotations

import random
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.policy.breaker import BreakerState
from gateway.policy.demand import Demand, Fit
from gateway.policy.load import WorkerLoad
from gateway.policy.outcomes import Outcome
from gateway.workers.client import WorkerClient
from gateway.workers.errors import UnusableWorkerError
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease
from tests.fakes.clock import ManualClock
from tests.fakes.served_models import served_model
from tests.fakes.worker_loads import worker_load

TARGETS = [f"worker:{number}" for number in range(4)]
MODELS = {checkpoint: served_model(checkpoint_sha256=checkpoint) for checkpoint in ("one", "other")}


def demand(tokens: int) -> Demand:
    """A job that may grow to so many ``tokens``."""
    return Demand(prompt_tokens=1, need_tokens=tokens)


class Unconnected:
    """As much of a client as a fleet needs."""

    def __init__(self, target: str) -> None:
        self.target = target


class FleetMachine(RuleBasedStateMachine):
    """Workers come, report, drain and go while jobs begin and end on them."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.fleet = Fleet(random.Random(0), self.clock)
        self.open: list[Lease] = []
        self.told = 0
        self.fleet.on_room(self.note)

    def note(self) -> None:
        self.told += 1

    def load(self, **fields: Any) -> WorkerLoad:
        """A load as of now."""
        return worker_load(received_at=self.clock(), **fields)

    def out(self, checkpoint: str) -> set[str]:
        """Workers that take no jobs in the gateway's opinion."""
        seats = [seat for seat in self.fleet.seats if seat.model.checkpoint_sha256 == checkpoint]
        return {seat.worker_id for seat in seats if seat.is_out(self.clock())}

    @rule(seconds=st.floats(0, 1.5))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(address=st.sampled_from(TARGETS), checkpoint=st.sampled_from(sorted(MODELS)), draining=st.booleans())
    def join(self, address: str, checkpoint: str, *, draining: bool) -> None:
        if address in {seat.worker_id for seat in self.fleet.seats}:
            return
        client = cast("WorkerClient", Unconnected(address))
        if {seat.model.checkpoint_sha256 for seat in self.fleet.seats} - {checkpoint}:
            with pytest.raises(UnusableWorkerError, match=f"'{checkpoint}'.*but worker:"):
                self.fleet.join(client, MODELS[checkpoint], self.load())
        else:
            self.fleet.join(client, MODELS[checkpoint], self.load(is_draining=draining))

    @rule(data=st.data(), free=st.integers(0, 100), draining=st.booleans())
    def report(self, data: st.DataObject, free: int, *, draining: bool) -> None:
        if self.fleet.seats:
            seat = data.draw(st.sampled_from(self.fleet.seats))
            told = self.told
            self.fleet.report(seat, self.load(free_blocks=free, is_draining=draining))
            assert not seat._is_doubtful
            assert told < self.told

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.fleet.seats:
            self.fleet.leave(data.draw(st.sampled_from(self.fleet.seats)))

    @rule(
        checkpoint=st.sampled_from(sorted(MODELS)),
        tokens=st.integers(1, 2000),
        exclude=st.sets(st.sampled_from(TARGETS)),
    )
    def lease(self, checkpoint: str, tokens: int, exclude: set[str]) -> None:
        eligible = {
            seat.worker_id
            for seat in self.fleet.seats
            if seat.model.checkpoint_sha256 == checkpoint and not seat.load.is_draining and tokens <= 1600
        } - exclude
        lease = self.fleet.lease(MODELS[checkpoint], demand(tokens), exclude=exclude)
        out = self.out(MODELS[checkpoint].checkpoint_sha256)
        assert (lease.worker_id in eligible) if lease else eligible <= out
        assert bool(eligible) == self.fleet.can_serve(MODELS[checkpoint], need_tokens=tokens, exclude=exclude)
        if lease:
            self.open.append(lease)

    @rule(checkpoint=st.sampled_from(sorted(MODELS)), need=st.integers(1, 1600), share=st.floats(0, 1))
    def lease_where_there_is_room(self, checkpoint: str, need: int, share: float) -> None:
        expected = max(1, round(need * share))
        model = MODELS[checkpoint]
        roomy = {
            seat.worker_id
            for seat in self.fleet.seats_for(model)
            if seat.has_room(demand(need), Fit(expected_tokens=expected), 0)
        }
        lease = self.fleet.lease(MODELS[checkpoint], demand(need), Fit(expected_tokens=expected), exclude=())
        out = self.out(MODELS[checkpoint].checkpoint_sha256)
        assert (lease.worker_id in roomy) if lease else roomy <= out
        if lease:
            self.open.append(lease)

    @rule(data=st.data(), outcome=st.sampled_from(Outcome), begun=st.booleans(), lost=st.booleans())
    def close(self, data: st.DataObject, outcome: Outcome, *, begun: bool, lost: bool) -> None:
        if self.open:
            told = self.told
            lease = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            if begun:
                lease.begin()
            lease.close(outcome, is_lost=lost, output_tokens=9, cached_tokens=0)
            assert told < self.told
            assert outcome is not Outcome.REFUSED or not lease._seat.has_room(demand(1), Fit(expected_tokens=1), 0)

    @invariant()
    def some_worker_is_in_whatever_was_thought_of_them(self) -> None:
        """A gateway never loses its whole fleet by its own opinion, nor more than half of it."""
        seats = [seat for seat in self.fleet.seats if not seat.load.is_draining]
        if seats:
            candidates = list(self.fleet._candidates(seats[0].model, demand(1), None))
            assert len(seats) - len(candidates) <= max(1, len(seats) // 2)
            assert candidates
            open_ones = {seat.worker_id for seat in seats if BreakerState.OPEN in seat.standing.states.values()}
            assert all(candidate.weight < 1 for candidate in candidates if candidate.worker_id in open_ones)

    @invariant()
    def jobs_are_counted_where_they_run(self) -> None:
        for seat in self.fleet.seats:
            assert sum(lease._seat is seat for lease in self.open) == seat.in_flight
            assert seat.unseen.blocks >= 0

    @invariant()
    def every_model_with_a_worker_is_known(self) -> None:
        assert {seat.model.name for seat in self.fleet.seats} <= set(self.fleet.models)
        assert self.fleet.is_serving == any(not seat.load.is_draining for seat in self.fleet.seats)


TestFleet = FleetMachine.TestCase
