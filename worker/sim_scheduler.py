"""Continuous batching with chunked prefill over a paged KV cache, as vLLM schedules it. Pure: time is passed in.

A step gives every running request its next tokens, oldest first; then it admits waiting requests while the step's token
budget, the batch and the free blocks allow. When a running request finds no block, the youngest one loses all of its
blocks and waits again, first in line; what it had computed is computed anew, save what the prefix cache still holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from worker.prefix import content_names
from worker.sim_blocks import Block, BlockPool
from worker.sim_profile import SimProfile


class RequestState(Enum):
    """Where a request stands in the scheduler."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class ScheduledRequest:
    """A request as the scheduler sees it. ``tokens`` is the prompt, then the output, to which its owner appends."""

    tokens: list[int]
    ready_at: float  # seconds; no step before takes it
    prompt_tokens: int
    state: RequestState = RequestState.WAITING
    computed_tokens: int = 0
    cached_tokens: int = 0  # found in the prefix cache when it first ran
    first_scheduled_at: float | None = None
    blocks: list[Block] = field(default_factory=list)
    names: list[int] = field(default_factory=list)  # of the full blocks of ``tokens``

    @property
    def remaining_tokens(self) -> int:
        """Tokens whose keys and values are still to be computed."""
        return len(self.tokens) - self.computed_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether the next step extends its output, and computes nothing else for it."""
        return len(self.tokens) > self.prompt_tokens and self.remaining_tokens == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step computes: so many tokens of each request."""

    chunks: list[tuple[ScheduledRequest, int]]
    prefill_tokens: int
    decode_requests: int


class Scheduler:
    """The waiting and the running requests of one engine, and its block pool.

    Not safe against a request larger than the whole pool: it would be preempted for ever. The owner refuses those.
    """

    def __init__(self, profile: SimProfile) -> None:
        self.pool = BlockPool(profile.total_blocks)
        self.preemptions = 0
        self.prompt_tokens_computed = 0
        self._block_size = profile.block_size
        self._max_running = profile.max_running_requests
        self._max_batched_tokens = profile.max_batched_tokens
        self._waiting: deque[ScheduledRequest] = deque()
        self._running: list[ScheduledRequest] = []

    @property
    def running_requests(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    @property
    def waiting_requests(self) -> int:
        """Requests outside the batch, preempted ones included."""
        return len(self._waiting)

    @property
    def next_ready_at(self) -> float | None:
        """When the first waiting request may run; None when none waits."""
        return self._waiting[0].ready_at if self._waiting else None

    def add(self, request: ScheduledRequest) -> None:
        """Put ``request`` last in line."""
        self._waiting.append(request)

    def remove(self, request: ScheduledRequest) -> None:
        """Forget ``request`` and free its blocks at once. A second time does nothing."""
        if request.state is RequestState.RUNNING:
            self._running.remove(request)
        elif request.state is RequestState.WAITING:
            self._waiting.remove(request)
        request.state = RequestState.ENDED
        self._release_blocks(request)

    def plan(self, now: float) -> Step:
        """Choose the next step's work and take its blocks. A step without chunks means that nothing can run yet."""
        preemptions = self.preemptions
        budget = self._max_batched_tokens
        chunks: list[tuple[ScheduledRequest, int]] = []
        decode_requests = 0
        index = 0
        while index < len(self._running) and budget:
            request = self._running[index]
            count = min(request.remaining_tokens, budget)
            if not self._extend(request, count):
                break
            chunks.append((request, count))
            decode_requests += request.is_decoding
            budget -= count
            index += 1
        if preemptions == self.preemptions:
            budget = self._admit(now, budget, chunks)
        prefill_tokens = self._max_batched_tokens - budget - decode_requests
        return Step(chunks=chunks, prefill_tokens=prefill_tokens, decode_requests=decode_requests)

    def commit(self, step: Step) -> list[ScheduledRequest]:
        """Count ``step`` as computed. Returns the requests that now get a token; the owner appends or removes them."""
        self.prompt_tokens_computed += step.prefill_tokens
        complete: list[ScheduledRequest] = []
        for request, count in step.chunks:
            if request.state is not RequestState.RUNNING:  # removed while the step ran
                continue
            request.computed_tokens += count
            self._name_full_blocks(request, count)
            if not request.remaining_tokens:
                complete.append(request)
        return complete

    def _admit(self, now: float, budget: int, chunks: list[tuple[ScheduledRequest, int]]) -> int:
        """Move waiting requests into the batch; returns what is left of ``budget``."""
        while self._waiting and budget and len(self._running) < self._max_running:
            request = self._waiting[0]
            if request.ready_at > now:
                break
            request.names = content_names(request.tokens, self._block_size, request.names)
            # At least one token has to be computed, or there would be nothing to sample from.
            shared = self.pool.find_prefix(request.names[: (len(request.tokens) - 1) // self._block_size])
            # All of the prompt has to fit, though only a chunk of it may run now: vLLM's scheduler_reserve_full_isl.
            if not self.pool.can_take(shared, self._blocks_for(len(request.tokens)) - len(shared)):
                break
            self._waiting.popleft()
            computed = len(shared) * self._block_size
            count = min(len(request.tokens) - computed, budget)
            request.blocks = self.pool.take(shared, self._blocks_for(computed + count) - len(shared))
            request.computed_tokens = computed
            request.state = RequestState.RUNNING
            if request.first_scheduled_at is None:
                request.first_scheduled_at = now
                request.cached_tokens = computed
            self._running.append(request)
            chunks.append((request, count))
            budget -= count
        return budget

    def _extend(self, request: ScheduledRequest, count: int) -> bool:
        """Take the blocks for ``count`` more tokens, preempting the youngest as needed; False if that was itself."""
        missing = self._blocks_for(request.computed_tokens + count) - len(request.blocks)
        while missing > self.pool.free_blocks:
            youngest = self._running.pop()
            self._preempt(youngest)
            if youngest is request:
                return False
        if missing:
            request.blocks += self.pool.take((), missing)
        return True

    def _preempt(self, request: ScheduledRequest) -> None:
        self._release_blocks(request)
        request.computed_tokens = 0
        request.state = RequestState.WAITING
        self._waiting.appendleft(request)
        self.preemptions += 1

    def _release_blocks(self, request: ScheduledRequest) -> None:
        self.pool.release(request.blocks)
        request.blocks = []

    def _name_full_blocks(self, request: ScheduledRequest, count: int) -> None:
        """Make the blocks reusable that the latest ``count`` tokens filled."""
        filled_before = (request.computed_tokens - count) // self._block_size
        filled = request.computed_tokens // self._block_size
        if filled == filled_before:
            return
        request.names = content_names(request.tokens, self._block_size, request.names)
        for block, name in zip(request.blocks[filled_before:filled], request.names[filled_before:filled], strict=True):
            self.pool.name(block, name)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self._block_size)
