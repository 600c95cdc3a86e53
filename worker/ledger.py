"""The KV ledger: which requests the engine may be given. Pure; the clock is passed in.

Every admitted request holds a reservation for the blocks that prompt and expected output will fill. Admission never
promises more blocks than the pool has. A request that outgrows its reservation is not stopped: the reservation grows
with it. Where all is promised, it grows into blocks that others have reserved and not filled, which is counted apart;
then nothing is admitted until as many have come back.

Blocks that prompts have in common are reserved once (``worker.shared_blocks``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from worker.drain import Drain
from worker.feed import Feed
from worker.output_lengths import OutputLengths
from worker.rate import Rate
from worker.shared_blocks import SharedBlocks

# Tenants whose holdings are told.
_MAX_TENANTS = 32
# Bounds of the advice when to come back, in seconds, and the advice before anything was released.
_MIN_RETRY_S, _MAX_RETRY_S, _UNKNOWN_RETRY_S = 0.05, 30.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What an engine holds. ``max_running_requests`` bounds its batch."""

    total_blocks: int
    block_size: int
    max_running_requests: int


class Limit(Enum):
    """What a refused request did not fit."""

    BLOCKS = "blocks"
    REQUESTS = "requests"
    PROMPT_TOKENS = "prompt_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the ledger would admit now. ``prompt_tokens`` is None while there is no bound."""

    blocks: int
    requests: int
    prompt_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not admitted: how far off it is, what would have been admitted, and when to try again.

    ``largest_tokens`` are prompt and expected output together, as far as blocks go.
    """

    limit: Limit
    needed_blocks: int
    room: Room
    requests: int  # inside
    largest_tokens: int
    released_blocks_per_s: float
    retry_after_s: float


class AtCapacityError(Exception):
    """The ledger has no room now."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(
            f"{refusal.needed_blocks} blocks needed, {refusal.room.blocks} not reserved, {refusal.requests} requests "
            f"inside; what is full: {refusal.limit.value}"
        )
        self.refusal = refusal


@dataclass(slots=True, eq=False, kw_only=True)
class Reservation:
    """The blocks promised to one request, from admission to its stream's end."""

    tenant: str
    prompt_tokens: int
    blocks: int  # for itself alone
    pending_prefill_tokens: int  # the prompt's, until there is output
    prompt_names: Sequence[int] = ()  # of the blocks that a prefix cache can share
    known_blocks: int = 0  # of these, the first that other requests held at admission
    shared_names: list[int] = field(default_factory=list)  # of these, the first that are held in common
    output_tokens: int = 0
    has_begun: bool = False
    is_released: bool = False


class Ledger:
    """All reservations of one engine."""

    def __init__(
        self, capacity: Capacity, lengths: OutputLengths, feed: Feed, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.capacity = capacity
        self.requests = 0
        self.admissions = 0
        self.refusals = 0  # for want of blocks
        self.pending_prefill_tokens = 0  # of all reservations
        self._lengths = lengths
        self._feed = feed
        self._own_blocks = 0
        self._held: Counter[str] = Counter()  # of these, by tenant
        self._shared = SharedBlocks()
        self._released = Rate(clock)
        self._drain = Drain(clock)

    @property
    def reserved_blocks(self) -> int:
        """Blocks promised, those that requests share counted once: never more than the pool has."""
        return min(self._needed_blocks, self.capacity.total_blocks)

    @property
    def outgrown_blocks(self) -> int:
        """What is needed beyond the pool when all requests fill what they have, for some have outgrown it."""
        return self._needed_blocks - self.reserved_blocks

    @property
    def unreserved_blocks(self) -> int:
        """Blocks that can still be promised."""
        return self.capacity.total_blocks - self.reserved_blocks

    @property
    def tenant_blocks(self) -> list[tuple[str, int]]:
        """Who holds how many of them, those first that hold most; what requests share is nobody's."""
        return self._held.most_common(_MAX_TENANTS)

    @property
    def released_blocks_per_s(self) -> float:
        """Blocks that ended requests gave back of late; 0 before any did."""
        return self._released.per_s

    @property
    def drained_blocks_per_s(self) -> float:
        """Blocks that come free while no usual request would be admitted; 0 as long as that is not known."""
        return self._drain.per_s

    @property
    def is_full(self) -> bool:
        """Whether a request of average size would not be admitted now, for want of blocks."""
        return self.requests > 0 and self.unreserved_blocks * self.requests < self.reserved_blocks

    @property
    def output_quantile(self) -> float:
        """The share of outputs that are no longer than it reckons with, at present."""
        return self._lengths.quantile

    @property
    def usual_output_tokens(self) -> int | None:
        """The output that a request of which nothing is known is reckoned with; None before anything was learned."""
        return self._lengths.usual

    @property
    def room(self) -> Room:
        """What would be admitted now."""
        backlog_tokens = self._feed.backlog_tokens
        inside = self.capacity.max_running_requests + self._feed.requests
        if backlog_tokens is not None and self.pending_prefill_tokens:
            prompt_tokens = max(0, backlog_tokens - self.pending_prefill_tokens)
        else:
            prompt_tokens = None  # an engine without a prompt to compute takes any
        return Room(blocks=self.unreserved_blocks, requests=max(0, inside - self.requests), prompt_tokens=prompt_tokens)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens fill."""
        return -(-tokens // self.capacity.block_size)

    def admit(
        self, *, tenant: str, prompt_tokens: int, max_output_tokens: int, prompt_names: Sequence[int] = ()
    ) -> Reservation:
        """Reserve what a request is expected to need. Raises ``AtCapacityError``.

        ``prompt_names`` are those of ``worker.prefix.shareable_names``; without them nothing is shared.
        """
        self._feed.learn(prompt_tokens)
        expected = self._lengths.expect(tenant=tenant, prompt_tokens=prompt_tokens, max_output_tokens=max_output_tokens)
        known_names = self._shared.known(prompt_names)
        shared_names = known_names if self._shared.is_trusted else []
        blocks = self.blocks_for(prompt_tokens + expected) - len(shared_names)
        self._refuse_what_does_not_fit(
            blocks, prompt_tokens, shared_tokens=len(shared_names) * self.capacity.block_size
        )
        self._shared.hold(shared_names)
        self._hold(tenant, blocks)
        self.requests += 1
        self.admissions += 1
        self.pending_prefill_tokens += prompt_tokens
        self._note_fullness()
        return Reservation(
            tenant=tenant,
            prompt_tokens=prompt_tokens,
            blocks=blocks,
            pending_prefill_tokens=prompt_tokens,
            prompt_names=prompt_names,
            known_blocks=len(known_names),
            shared_names=shared_names,
        )

    def reserved_output_tokens(self, reservation: Reservation) -> int:
        """Output tokens that fit the reservation, the shared blocks of its prompt counted as its own."""
        blocks = reservation.blocks + len(reservation.shared_names)
        return blocks * self.capacity.block_size - reservation.prompt_tokens

    def begin(self, reservation: Reservation, *, cached_tokens: int) -> None:
        """The prompt has been computed, but for ``cached_tokens`` that the engine found in its prefix cache."""
        if reservation.has_begun:
            return
        reservation.has_begun = True
        self._end_prefill(reservation)
        held_before = len(reservation.shared_names)
        reservation.shared_names = self._shared.confirm(
            reservation.prompt_names,
            known=reservation.known_blocks,
            held=held_before,
            cached=min(cached_tokens // self.capacity.block_size, len(reservation.prompt_names)),
        )
        moved = len(reservation.shared_names) - held_before
        reservation.blocks -= moved
        self._hold(reservation.tenant, -moved)

    def extend(self, reservation: Reservation, new_tokens: int) -> None:
        """Count new output tokens; grow the reservation when they do not fit it."""
        self._end_prefill(reservation)
        reservation.output_tokens += new_tokens
        tokens = reservation.prompt_tokens + reservation.output_tokens
        missing = self.blocks_for(tokens) - reservation.blocks - len(reservation.shared_names)
        if missing > 0:
            reservation.blocks += missing
            self._hold(reservation.tenant, missing)

    def release(self, reservation: Reservation, *, is_complete: bool) -> None:
        """Give the blocks back; a second time does nothing. ``is_complete``: the output came to its own end."""
        if reservation.is_released:
            return
        reservation.is_released = True
        needed = self._needed_blocks
        self._hold(reservation.tenant, -reservation.blocks)
        self._shared.let_go(reservation.shared_names)
        self.requests -= 1
        self._end_prefill(reservation)
        self._released.add(needed - self._needed_blocks)
        self._drain.release(needed - self._needed_blocks)
        self._note_fullness()
        if is_complete:
            self._lengths.learn(
                tenant=reservation.tenant,
                prompt_tokens=reservation.prompt_tokens,
                output_tokens=reservation.output_tokens,
            )

    @property
    def _needed_blocks(self) -> int:
        return self._own_blocks + self._shared.blocks

    def _hold(self, tenant: str, blocks: int) -> None:
        self._own_blocks += blocks
        self._held[tenant] += blocks
        if not self._held[tenant]:
            del self._held[tenant]

    def _note_fullness(self) -> None:
        self._drain.set_full(self.is_full or not self.room.requests)

    def _end_prefill(self, reservation: Reservation) -> None:
        self.pending_prefill_tokens -= reservation.pending_prefill_tokens
        reservation.pending_prefill_tokens = 0

    def _refuse_what_does_not_fit(self, blocks: int, prompt_tokens: int, *, shared_tokens: int) -> None:
        room = self.room
        if blocks > room.blocks:
            limit = Limit.BLOCKS
            self.refusals += 1
        elif not room.requests:
            limit = Limit.REQUESTS
        elif room.prompt_tokens is not None and prompt_tokens > room.prompt_tokens:
            limit = Limit.PROMPT_TOKENS
        else:
            return
        raise AtCapacityError(
            Refusal(
                limit=limit,
                needed_blocks=blocks,
                room=room,
                requests=self.requests,
                largest_tokens=room.blocks * self.capacity.block_size + shared_tokens if room.requests else 0,
                released_blocks_per_s=self.released_blocks_per_s,
                retry_after_s=self._retry_after_s(limit, blocks, prompt_tokens, room),
            )
        )

    def _retry_after_s(self, limit: Limit, blocks: int, prompt_tokens: int, room: Room) -> float:
        """How long what is missing takes to come free at the rate of late."""
        if limit is Limit.PROMPT_TOKENS:
            missing, rate = float(prompt_tokens - (room.prompt_tokens or 0)), self._feed.prefill_tokens_per_s
        elif limit is Limit.REQUESTS:
            missing, rate = self.reserved_blocks / self.requests, self._released.per_s
        else:
            missing, rate = float(max(1, blocks - room.blocks)), self._released.per_s
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, missing / rate)) if rate else _UNKNOWN_RETRY_S
