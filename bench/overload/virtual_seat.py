"""A worker as a virtual gateway sees it: its latest report, and what was sent there since."""

from __future__ import annotations

from bench.overload.virtual_worker import VirtualWorker
from gateway.policy.candidate import Candidate
from gateway.policy.load import WorkerLoad
from gateway.policy.supply import WorkerRoom
from gateway.policy.unseen_work import Sent, UnseenWork
from gateway.policy.waiter import Waiter


class VirtualSeat:
    """As ``gateway.workers.seat.Seat``."""

    def __init__(self, worker: VirtualWorker, number: int) -> None:
        self.worker = worker
        self.load = worker.load()
        self.unseen = UnseenWork(self.load.sample_number)
        self.in_flight = 0
        self._in_flight_blocks = 0
        self._has_refused = False
        self._name = str(number)

    @property
    def room(self) -> WorkerRoom:
        """For ``supply_of``."""
        return WorkerRoom(
            load=self.load,
            unseen_blocks=self.unseen.blocks,
            unseen_requests=self.unseen.requests,
            unseen_prefill_tokens=self.unseen.prefill_tokens,
            own_blocks=self._in_flight_blocks,
        )

    @property
    def free_tokens(self) -> int:
        """As ``Seat.free_tokens``."""
        return 0 if self._has_refused else self.room.free_tokens

    def has_room(self, waiter: Waiter, spare_tokens: int) -> bool:
        """As ``Seat.has_room``."""
        load, unseen, prompt_tokens = self.load, self.unseen, waiter.prompt_tokens
        is_idle = not load.reserved_blocks and not unseen.blocks
        blocks = -(-(waiter.tokens + (0 if is_idle else spare_tokens)) // load.block_size)
        before_tokens, most_tokens = load.pending_prefill_tokens + unseen.prefill_tokens, waiter.prefill_line_tokens
        has_time = (
            load.admissible_prompt_tokens is None
            or prompt_tokens + unseen.prefill_tokens <= load.admissible_prompt_tokens
        ) and (most_tokens is None or not before_tokens or before_tokens + prompt_tokens <= most_tokens)
        return has_time and blocks * load.block_size <= self.free_tokens

    def as_candidate(self, now: float) -> Candidate:
        """As ``Seat.as_candidate``, of a worker in good standing."""
        return Candidate(
            worker_id=self._name,
            load=self.load,
            load_age_s=now - self.load.received_at,
            unseen_blocks=self.unseen.blocks,
            unseen_prefill_tokens=self.unseen.prefill_tokens,
            in_flight=self.in_flight,
            is_doubtful=self._has_refused,
        )

    def send(self, waiter: Waiter) -> Sent:
        """A request is on its way."""
        blocks = -(-waiter.tokens // self.load.block_size)
        self.in_flight += 1
        self._in_flight_blocks += blocks
        return self.unseen.send(blocks=blocks, prefill_tokens=waiter.prompt_tokens)

    def end(self, sent: Sent) -> None:
        """What was sent is over."""
        self.unseen.end(sent)
        self.in_flight -= 1
        self._in_flight_blocks -= sent.blocks

    def refuse(self) -> None:
        """The worker had no room for what was sent; it may have with its next report."""
        self._has_refused = True

    def receive(self, load: WorkerLoad) -> None:
        """A report has come."""
        self.load = load
        self.unseen.receive_report(load.sample_number)
        self._has_refused = False
