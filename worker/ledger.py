"""The KV ledger: which requests the engine may be given. Pure; the clock is passed in.

Every admitted request holds a reservation for the blocks that prompt and expected output will fill. Admission never
promises more blocks than the pool has. A request that outgrows its reservation is not stopped: the reservation grows
with it, if need be beyond the pool, and then nothing is admitted until others have ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.output_lengths import OutputLengths
from worker.rate import Rate

# Bounds of the advice when to come back, in seconds, and the advice before anything was released.
_MIN_RETRY_S, _MAX_RETRY_S, _UNKNOWN_RETRY_S = 0.05, 30.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What an engine holds. ``max_requests`` bounds those that run and those that wait inside the engine together."""

    total_blocks: int
    block_size: int
    max_requests: int


class AtCapacityError(Exception):
    """The ledger has no room now. The numbers tell a gateway how far off it is, and when to try again."""

    def __init__(self, *, needed_blocks: int, unreserved_blocks: int, requests: int, retry_after_s: float) -> None:
        super().__init__(f"{needed_blocks} blocks needed, {unreserved_blocks} not reserved, {requests} requests inside")
        self.needed_blocks = needed_blocks
        self.unreserved_blocks = unreserved_blocks
        self.requests = requests
        self.retry_after_s = retry_after_s


@dataclass(slots=True, eq=False, kw_only=True)
class Reservation:
    """The blocks promised to one request, from admission to its stream's end."""

    tenant: str
    prompt_tokens: int
    blocks: int
    pending_prefill_tokens: int  # the prompt's, until there is output
    output_tokens: int = 0
    is_released: bool = False


class Ledger:
    """All reservations of one engine."""

    def __init__(self, capacity: Capacity, lengths: OutputLengths, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.reserved_blocks = 0
        self.requests = 0
        self.pending_prefill_tokens = 0  # of all reservations
        self._lengths = lengths
        self._released = Rate(clock)

    @property
    def unreserved_blocks(self) -> int:
        """Blocks that can still be promised; 0 when requests have outgrown the pool."""
        return max(0, self.capacity.total_blocks - self.reserved_blocks)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens fill."""
        return -(-tokens // self.capacity.block_size)

    def admit(self, *, tenant: str, prompt_tokens: int, max_output_tokens: int) -> Reservation:
        """Reserve what a request is expected to need. Raises ``AtCapacityError``."""
        expected = self._lengths.expect(tenant=tenant, prompt_tokens=prompt_tokens, max_output_tokens=max_output_tokens)
        blocks = self.blocks_for(prompt_tokens + expected)
        if blocks > self.unreserved_blocks or self.requests >= self.capacity.max_requests:
            raise AtCapacityError(
                needed_blocks=blocks,
                unreserved_blocks=self.unreserved_blocks,
                requests=self.requests,
                retry_after_s=self._retry_after_s(blocks),
            )
        self.reserved_blocks += blocks
        self.requests += 1
        self.pending_prefill_tokens += prompt_tokens
        return Reservation(
            tenant=tenant, prompt_tokens=prompt_tokens, blocks=blocks, pending_prefill_tokens=prompt_tokens
        )

    def extend(self, reservation: Reservation, new_tokens: int) -> None:
        """Count new output tokens; grow the reservation when they do not fit it."""
        self._end_prefill(reservation)
        reservation.output_tokens += new_tokens
        missing = self.blocks_for(reservation.prompt_tokens + reservation.output_tokens) - reservation.blocks
        if missing > 0:
            reservation.blocks += missing
            self.reserved_blocks += missing

    def release(self, reservation: Reservation, *, is_complete: bool) -> None:
        """Give the blocks back; a second time does nothing. ``is_complete``: the output came to its own end."""
        if reservation.is_released:
            return
        reservation.is_released = True
        self.reserved_blocks -= reservation.blocks
        self.requests -= 1
        self._end_prefill(reservation)
        self._released.add(reservation.blocks)
        if is_complete:
            self._lengths.learn(
                tenant=reservation.tenant,
                prompt_tokens=reservation.prompt_tokens,
                output_tokens=reservation.output_tokens,
            )

    def _end_prefill(self, reservation: Reservation) -> None:
        self.pending_prefill_tokens -= reservation.pending_prefill_tokens
        reservation.pending_prefill_tokens = 0

    def _retry_after_s(self, blocks: int) -> float:
        """How long the missing blocks take to come free at the rate of late; at least one block is missing."""
        rate = self._released.per_s
        if not rate:
            return _UNKNOWN_RETRY_S
        missing = max(1, blocks - self.unreserved_blocks)
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, missing / rate))
