from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Refusal, WaitingLine
from tests.fakes.clock import ManualClock
from tests.fakes.feeds import wide_feed
from worker.ledger import AtCapacityError, Capacity, Ledger, Reservation
from worker.output_lengths import OutputLengths
from worker.prefix import shareable_names

_BLOCK_SIZE, _BLOCKS = 16, 60
_GATEWAYS, _WORKERS = 3, 4


@dataclass(eq=False, kw_only=True)
class _Caller(Waiter):
    prompt: list[int]
    output_tokens: int
    max_output_tokens: int
    worker: int = -1
    reservation: Reservation | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class _Gateway:
    """A waiting line with views of the workers that are as old as chance has it."""

    line: WaitingLine
    seen_room: list[int] = field(default_factory=lambda: [_BLOCKS] * _WORKERS)


class _Fleet:
    """Gateways that know nothing of one another, and the ledgers that they share."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        capacity = Capacity(total_blocks=_BLOCKS, block_size=_BLOCK_SIZE, max_running_requests=50)
        self.ledgers = [Ledger(capacity, OutputLengths(quantile=0.7), wide_feed(), self.clock) for _ in range(_WORKERS)]
        self.gateways = [
            _Gateway(line=WaitingLine(max_bytes=10_000, max_wait_s=1.5, weights={}, rng=self.rng))
            for _ in range(_GATEWAYS)
        ]
        self.running: list[tuple[_Gateway, _Caller]] = []
        self.served = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.advance(self.rng.expovariate(20))
            gateway = self.rng.choice(self.gateways)
            self.rng.choice((self._arrive, self._arrive, self._report, self._work, self._work))(gateway)
            self._serve(gateway)

    def drain(self) -> None:
        """Everybody goes on until all is done."""
        for _ in range(10_000):
            self.clock.advance(0.05)
            for gateway in self.gateways:
                self._report(gateway)
                self._serve(gateway)
                self._work(gateway)
            if not self.running and not any(len(gateway.line.queue) for gateway in self.gateways):
                return

    def _arrive(self, gateway: _Gateway) -> None:
        rng, now = self.rng, self.clock()
        common, own = rng.choice((0, 0, 160)), rng.randrange(1, 200)
        prompt = [*range(common), *(rng.randrange(10**6) for _ in range(own))]
        caller = _Caller(
            tenant=rng.choice("ab"),
            rank=rng.randrange(4),
            tokens=len(prompt) + 100,
            prompt_tokens=len(prompt),
            size_bytes=len(prompt),
            arrived_at=now,
            deadline_at=now + 60,
            leaves_at=now + 1.5,
            prompt=prompt,
            output_tokens=rng.randrange(1, 300),
            max_output_tokens=300,
        )
        answer = gateway.line.offer(caller, self._supply(gateway), now)
        assert isinstance(answer, Refusal | list)

    def _report(self, gateway: _Gateway) -> None:
        """One worker's report reaches one gateway; the others go on with what they had."""
        worker = self.rng.randrange(_WORKERS)
        gateway.seen_room[worker] = self.ledgers[worker].unreserved_blocks

    def _serve(self, gateway: _Gateway) -> None:
        now = self.clock()
        gateway.line.expire(self._supply(gateway), now)
        while isinstance(caller := gateway.line.next(lambda waiter: self._place(gateway, waiter), now), _Caller):
            ledger = self.ledgers[caller.worker]
            before = ledger.reserved_blocks
            try:
                caller.reservation = ledger.admit(
                    tenant=caller.tenant,
                    prompt_tokens=len(caller.prompt),
                    max_output_tokens=caller.max_output_tokens,
                    prompt_names=shareable_names(caller.prompt, _BLOCK_SIZE),
                )
            except AtCapacityError as error:
                assert before == ledger.reserved_blocks
                gateway.seen_room[caller.worker] = 0  # until the next report
                gateway.line.put_back(caller, tokens=error.refusal.needed_blocks * _BLOCK_SIZE)
                continue
            assert caller.reservation.blocks <= _BLOCKS - before
            assert not ledger.outgrown_blocks
            self.running.append((gateway, caller))

    def _place(self, gateway: _Gateway, waiter: Waiter) -> bool:
        assert isinstance(waiter, _Caller)
        waiter.worker = max(range(_WORKERS), key=gateway.seen_room.__getitem__)
        blocks = -(-waiter.tokens // _BLOCK_SIZE)
        has_room = blocks <= gateway.seen_room[waiter.worker]
        if has_room:
            gateway.seen_room[waiter.worker] -= blocks
        return has_room

    def _work(self, gateway: _Gateway) -> None:
        """Some streams go on, some end, some clients go away."""
        for entry in self.rng.sample(self.running, min(5, len(self.running))):
            owner, caller = entry
            reservation, ledger = caller.reservation, self.ledgers[caller.worker]
            assert reservation is not None
            ledger.begin(reservation, cached_tokens=self.rng.choice((0, 160)))
            ledger.extend(reservation, self.rng.randrange(1, 60))
            is_complete = reservation.output_tokens >= caller.output_tokens
            if is_complete or self.rng.random() < 0.05:
                ledger.release(reservation, is_complete=is_complete)
                owner.line.released(caller, len(caller.prompt) + reservation.output_tokens)
                self.running.remove(entry)
                self.served += 1

    def _supply(self, gateway: _Gateway) -> Supply:
        return Supply(free_tokens=sum(gateway.seen_room) * _BLOCK_SIZE, tokens_per_s=None)


@given(seed=st.integers(0, 2**32))
def test_no_number_of_gateways_makes_a_ledger_promise_more_than_it_has(seed: int) -> None:
    """Whatever gateways believe, an admission leaves the ledger within its pool; and in the end all blocks are back."""
    fleet = _Fleet(seed)

    fleet.run(300)
    fleet.drain()

    assert 0 < fleet.served
    assert [(0, 0, 0)] * _WORKERS == [
        (ledger.reserved_blocks, ledger.requests, ledger.pending_prefill_tokens) for ledger in fleet.ledgers
    ]
