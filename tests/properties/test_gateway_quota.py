from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.policy.quota import QuotaRefusal, Quotas, Reservation
from gateway.policy.tenants import Tenants, TenantTerms


class QuotaMachine(RuleBasedStateMachine):
    """Two tenants reserve and settle. What was used of late is never more than the limit allows."""

    @initialize(tokens=st.integers(10, 1000), requests=st.integers(1, 20), gateways=st.integers(1, 3))
    def start(self, tokens: int, requests: int, gateways: int) -> None:
        self.now = 0.0
        terms = {"a": TenantTerms(tokens_per_minute=tokens, requests_per_minute=requests), "b": TenantTerms()}
        tenants = Tenants(terms, trusts_claims=True, max_tenants=1)
        self.quotas = Quotas(tenants, gateways=gateways)
        self.tokens, self.requests = tokens / gateways, requests / gateways
        self.open: list[tuple[Reservation, int]] = []
        self.taken: deque[tuple[float, int]] = deque()  # by those not given back, as settled
        self.overdrawn = 0

    @rule(tokens=st.integers(1, 1200))
    def reserve(self, tokens: int) -> None:
        answer = self.quotas.reserve("a", tokens=tokens, now=self.now)
        if isinstance(answer, Reservation):
            self.open.append((answer, tokens))
            self.taken.append((self.now, tokens))
            return
        assert answer.passing < answer.needed
        assert (answer.retry_after_s is None) == (answer.needed > answer.per_minute)
        if answer.retry_after_s is None:
            return
        # Told to come back then, it passes then, if nobody else came in between; and not much sooner.
        again = self.quotas.reserve("a", tokens=tokens, now=self.now + answer.retry_after_s * 0.9)
        assert isinstance(again, QuotaRefusal)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.open)
    @rule(data=st.data(), more=st.integers(-1200, 300), was_served=st.booleans())
    def settle(self, data: st.DataObject, more: int, *, was_served: bool) -> None:
        reservation, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        used = max(0, tokens + more) if was_served else None
        self.quotas.settle(reservation, used_tokens=used, now=self.now)
        self.overdrawn += max(0, (used or 0) - tokens)
        self.taken.append((self.now, min(0, (used or 0) - tokens)))

    @rule(tokens=st.integers(1, 10**9))
    def others_have_no_limit(self, tokens: int) -> None:
        assert isinstance(self.quotas.reserve("b", tokens=tokens, now=self.now), Reservation)

    @invariant()
    def no_minute_holds_more_than_a_full_bucket_and_its_refill(self) -> None:
        last_minute = sum(tokens for at, tokens in self.taken if at > self.now - 60 and tokens > 0)
        given_back = -sum(tokens for _, tokens in self.taken if tokens < 0)
        assert last_minute <= 2 * self.tokens + given_back + 1e-6


class WaitMachine(RuleBasedStateMachine):
    """Whoever comes back when told to passes."""

    @initialize(tokens=st.integers(10, 1000))
    def start(self, tokens: int) -> None:
        self.now = 0.0
        self.quotas = Quotas(Tenants({"a": TenantTerms(tokens_per_minute=tokens)}, trusts_claims=True, max_tenants=1))

    @rule(tokens=st.integers(1, 1000))
    def come_and_come_back(self, tokens: int) -> None:
        answer = self.quotas.reserve("a", tokens=tokens, now=self.now)
        if isinstance(answer, QuotaRefusal) and answer.retry_after_s is not None:
            self.now += answer.retry_after_s + 1e-6
            assert isinstance(self.quotas.reserve("a", tokens=tokens, now=self.now), Reservation)


TestQuota = QuotaMachine.TestCase
TestWait = WaitMachine.TestCase
