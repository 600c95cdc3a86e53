from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tests.fakes.clock import ManualClock
from tests.fakes.feeds import wide_feed
from worker.ledger import AtCapacityError, Capacity, Ledger, Limit, Reservation
from worker.output_lengths import OutputLengths
from worker.prefix import shareable_names

_TENANTS = st.sampled_from(("", "a", "b"))
_NOTHING = Reservation(tenant="", prompt_tokens=1, blocks=0, pending_prefill_tokens=0, is_released=True)


class LedgerMachine(RuleBasedStateMachine):
    """Requests come, share prompts, outgrow their reservations and end in any order; the books have to stay right."""

    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.ledger = Ledger(
            Capacity(total_blocks=40, block_size=16, max_running_requests=6),
            OutputLengths(quantile=0.7),
            wide_feed(),
            self.clock,
        )
        self.open: list[Reservation] = []

    @rule(
        target=reservations,
        tenant=_TENANTS,
        prompt_tokens=st.integers(1, 400),
        common_tokens=st.integers(0, 400),
        max_output_tokens=st.integers(1, 400),
    )
    def admit(self, tenant: str, prompt_tokens: int, common_tokens: int, max_output_tokens: int) -> Reservation:
        """Admission promises what the pool has, and refuses with true numbers."""
        before, requests = self.ledger.reserved_blocks, self.ledger.requests
        own_tokens = max(0, prompt_tokens - common_tokens)
        prompt = [*range(prompt_tokens - own_tokens), *(-len(self.open) - 1 for _ in range(own_tokens))]
        names = shareable_names(prompt, 16)
        held = {name for reservation in self.open for name in reservation.shared_names}
        most = math.ceil((prompt_tokens + max_output_tokens) / 16)
        try:
            reservation = self.ledger.admit(
                tenant=tenant, prompt_tokens=prompt_tokens, max_output_tokens=max_output_tokens, prompt_names=names
            )
        except AtCapacityError as error:
            refusal = error.refusal
        else:
            assert not self.ledger.outgrown_blocks
            assert prompt_tokens // 16 < reservation.blocks + len(reservation.shared_names) <= most
            assert held.issuperset(reservation.shared_names)
            self.open.append(reservation)
            return reservation
        assert (refusal.needed_blocks > refusal.room.blocks) == (refusal.limit is Limit.BLOCKS)
        assert refusal.limit is Limit.BLOCKS or requests == 6
        assert refusal.needed_blocks <= most
        assert refusal.retry_after_s > 0
        assert (before, requests) == (self.ledger.reserved_blocks, self.ledger.requests)
        return _NOTHING

    @rule(reservation=reservations, cached_share=st.floats(0, 1))
    def begin(self, reservation: Reservation, cached_share: float) -> None:
        """Whatever the engine says of its cache, a request keeps as many blocks as before or gets what it lacks."""
        if reservation.is_released or reservation.has_begun:
            return
        blocks = reservation.blocks + len(reservation.shared_names)
        self.ledger.begin(reservation, cached_tokens=round(cached_share * reservation.prompt_tokens))
        assert blocks == reservation.blocks + len(reservation.shared_names)
        assert list(reservation.prompt_names[: len(reservation.shared_names)]) == reservation.shared_names

    @rule(reservation=reservations, new_tokens=st.integers(1, 60))
    def extend(self, reservation: Reservation, new_tokens: int) -> None:
        """A reservation always covers its tokens."""
        if reservation.is_released:
            return
        self.ledger.extend(reservation, new_tokens)
        blocks = reservation.blocks + len(reservation.shared_names)
        assert blocks * 16 >= reservation.prompt_tokens + reservation.output_tokens

    @rule(reservation=consumes(reservations), is_complete=st.booleans(), twice=st.booleans())
    def release(self, reservation: Reservation, *, is_complete: bool, twice: bool) -> None:
        """A release counts once."""
        for _ in range(1 + twice):
            self.ledger.release(reservation, is_complete=is_complete)
        self.open = [other for other in self.open if other is not reservation]

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @invariant()
    def books_add_up(self) -> None:
        """The totals are what is open: a request's own blocks, and each shared block once; never above the pool."""
        shared = {name for reservation in self.open for name in reservation.shared_names}
        needed = sum(reservation.blocks for reservation in self.open) + len(shared)
        assert (min(40, needed), max(0, needed - 40)) == (self.ledger.reserved_blocks, self.ledger.outgrown_blocks)
        assert all(reservation.blocks >= 0 for reservation in self.open)
        held = Counter[str]()
        for reservation in self.open:
            held[reservation.tenant] += reservation.blocks
        assert +held == Counter(dict(self.ledger.tenant_blocks))
        assert len(self.open) == self.ledger.requests
        pending = sum(reservation.pending_prefill_tokens for reservation in self.open)
        assert pending == self.ledger.pending_prefill_tokens

    def teardown(self) -> None:
        """When all have ended nothing is left."""
        for reservation in self.open:
            self.ledger.release(reservation, is_complete=True)
        assert (0, 0, 0) == (
            self.ledger.reserved_blocks,
            self.ledger.requests,
            self.ledger.pending_prefill_tokens,
        )


TestLedger = LedgerMachine.TestCase


@pytest.mark.parametrize("output_tokens", [1, 17, 300])
def test_expected_output_follows_what_the_tenant_does(output_tokens: int) -> None:
    """After enough outputs of one length, that length is reserved, give or take the sketch's 2 %."""
    lengths = OutputLengths(quantile=0.7)
    for _ in range(50):
        lengths.learn(tenant="a", prompt_tokens=100, output_tokens=output_tokens)

    assert output_tokens == pytest.approx(
        lengths.expect(tenant="a", prompt_tokens=100, max_output_tokens=1_000), rel=0.02, abs=0.5
    )


def test_unknown_tenant_is_reckoned_with_what_all_do() -> None:
    """Before anything is known the maximum is reserved; then, of a new tenant, what the others did."""
    lengths = OutputLengths(quantile=0.7)
    assert 1_000 == lengths.expect(tenant="b", prompt_tokens=100, max_output_tokens=1_000)

    for _ in range(50):
        lengths.learn(tenant="a", prompt_tokens=100, output_tokens=100)

    assert 100 == pytest.approx(lengths.expect(tenant="b", prompt_tokens=9, max_output_tokens=1_000), rel=0.02)
    assert 7 == lengths.expect(tenant="b", prompt_tokens=9, max_output_tokens=7)
