from __future__ import annotations

import heapq
import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.breaker import BreakerLimits
from gateway.policy.decision import Again, budget_record, quota_record
from gateway.policy.outcomes import Outcome
from gateway.policy.output_budget import OutputDemand
from gateway.policy.quota import QuotaRefusal, Quotas
from gateway.policy.record import SEED_BITS, MissingRecordError, Record
from gateway.policy.recorded_breaker import RecordedBreaker
from gateway.policy.recorded_limit import RecordedLimit
from gateway.policy.recorded_line import LineTerms, RecordedLine
from gateway.policy.standing import Pass, Phase, Standing
from gateway.policy.tenants import Tenants, TenantTerms
from gateway.replay import replay
from tests.fakes.clock import ManualClock
from tests.fakes.virtual_fleet import VirtualFleet, poisson
from tests.fakes.worker_loads import worker_load

_TENANTS = Tenants({"a": TenantTerms(weight=3.0)}, trusts_claims=True, max_tenants=10)


def recorded(seed: int, *, for_s: float = 6.0) -> list[Record]:
    """What two gateways tell of an overload, as a log keeps it."""
    told: list[Record] = []
    terms = LineTerms(max_bytes=20_000, max_wait_s=1.5, weights=_TENANTS.weights, seed=seed)
    fleet = VirtualFleet(lines=[RecordedLine(terms, number, told.append) for number in range(2)], capacity_tokens=8_000)
    fleet.run(
        heapq.merge(
            *(
                poisson(
                    random.Random(seed + number),
                    per_s=2.0,
                    for_s=for_s,
                    tenant="ab"[number % 2],
                    rank=number // 2 % 2 * 2 + 1,
                    gateway=number // 4,
                )
                for number in range(8)
            ),
            key=lambda trip: trip.arrived_at,
        )
    )
    return [json.loads(json.dumps(record)) for record in told]


@given(seed=st.integers(0, 1_000))
@settings(max_examples=10, deadline=None)
def test_whatever_a_line_decided_it_decides_again(seed: int) -> None:
    """To the last bit: who waits, who is refused, who goes next, who leaves, and when the others are to come back."""
    again, records = Again(), recorded(seed)

    assert [record["outcome"] for record in records] == [again.decide(record) for record in records]


def test_a_recorded_overload_has_all_that_a_line_decides() -> None:
    """Refusals and waits among them."""
    records = recorded(1)

    assert {"open", "offer", "next", "expire", "released"} <= {record["call"] for record in records}
    outcomes = Counter("victims" in record["outcome"] for record in records if record["call"] == "offer")
    assert {True, False} == set(outcomes)


def test_a_line_of_another_policy_is_found_out() -> None:
    """Here one that gives the first tenant a thirtieth of its share: it serves others next."""
    records = recorded(1)
    for record in records:
        if record["call"] == "open":
            record["terms"]["weights"] = {"a": 0.1}

    assert list(replay((json.dumps(record) for record in records), Counter()))


def test_a_line_whose_beginning_is_missing_cannot_be_replayed() -> None:
    """Its answers follow from all that came before."""
    with pytest.raises(MissingRecordError):
        Again().decide(recorded(1, for_s=1.0)[-1])


@given(seed=st.integers(0, 1_000))
def test_quotas_are_judged_again(seed: int) -> None:
    """By what was left of them."""
    rng, now = random.Random(seed), 0.0
    tenants = Tenants(
        {"a": TenantTerms(tokens_per_minute=1_000, requests_per_minute=10)}, trusts_claims=True, max_tenants=1
    )
    quotas, again = Quotas(tenants), Again()
    for _ in range(30):
        now += rng.expovariate(1)
        levels, tokens = quotas.levels("a", now), rng.randrange(1, 1_500)
        answer = quotas.reserve("a", tokens=tokens, now=now)
        refusal = answer if isinstance(answer, QuotaRefusal) else None
        record = json.loads(json.dumps(quota_record(levels, tokens=tokens, refusal=refusal)))
        assert record["outcome"] == again.decide(record)


@given(remaining_s=st.floats(0, 20), may_clamp=st.booleans())
def test_budgets_are_fitted_again(remaining_s: float, may_clamp: bool) -> None:  # noqa: FBT001 - hypothesis passes it
    """Those that were refused, too."""
    demand = OutputDemand(prompt_tokens=500, min_output_tokens=10, max_output_tokens=200, may_clamp=may_clamp)
    load = worker_load(prefill_tokens_per_s=1_000.0, decode_tokens_per_s=300.0, running_requests=10)

    record = json.loads(json.dumps(budget_record(demand, load, remaining_s=remaining_s)))

    assert record["outcome"] == Again().decide(record)


@given(seed=st.integers(0, 1_000))
@settings(deadline=None)
def test_limits_judge_again(seed: int) -> None:
    """Who was let in, and when those who were not were told to come back."""
    rng, clock, told, again = random.Random(seed), ManualClock(), list[Record](), Again()
    limit = RecordedLimit(5, name="max_in_flight", clock=clock, rng=random.Random(seed), on_decision=told.append)
    for _ in range(50):
        clock.advance(rng.expovariate(1))
        if limit.try_take() is not None or (limit.in_use and rng.random() < 0.4):
            limit.give_back()
    records = [json.loads(json.dumps(record)) for record in told]

    assert {True, False} == {record["outcome"] is None for record in records}
    assert [record["outcome"] for record in records] == [again.decide(record) for record in records]


@given(seed=st.integers(0, 1_000))
@settings(deadline=None)
def test_breakers_judge_again(seed: int) -> None:
    """Each state, each delay, each job that was let pass, of a worker that fails two jobs of three."""
    rng, told, again, now = random.Random(seed), list[Record](), Again(), 0.0

    def make(phase: Phase, limits: BreakerLimits) -> RecordedBreaker:
        labels = {"breaker": rng.getrandbits(SEED_BITS), "phase": phase.value}
        return RecordedBreaker(limits, seed=rng.getrandbits(SEED_BITS), labels=labels, on_decision=told.append)

    standing, leaves = Standing(make), list[Pass]()
    for _ in range(100):
        now += rng.expovariate(4)
        if standing.can_take(now):
            leaves.append(standing.take(now))
        if leaves and rng.random() < 0.8:
            leave, outcome = leaves.pop(), rng.choice((Outcome.SUCCESS, Outcome.FAILED, Outcome.FAILED))
            if has_begun := rng.random() < 0.5:
                standing.begin(leave, now)
            standing.close(leave, outcome, now, has_begun=has_begun, is_lost=rng.random() < 0.5)
        if rng.random() < 0.05:
            rng.choice((standing.stall, lambda now: standing.join(now, is_slow=True)))(now)
    records = [json.loads(json.dumps(record)) for record in told]

    assert [record["outcome"] for record in records] == [again.decide(record) for record in records]
    assert {"open", "can_take", "take", "fail", "succeed"} <= {record["call"] for record in records}


def test_a_breaker_whose_beginning_is_missing_cannot_be_replayed() -> None:
    """Its verdicts follow from all that came before."""
    with pytest.raises(MissingRecordError):
        Again().decide({"kind": "breaker", "breaker": 1, "call": "stall", "now": 0.0})
