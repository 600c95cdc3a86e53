"""The sim engine's own scheduler and step times on a virtual clock: exact, repeatable, and faster than the machine."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from worker.engine import EngineLoad
from worker.sim_profile import SimProfile
from worker.sim_scheduler import ScheduledRequest, Scheduler, Step


class Agenda:
    """What happens when. Events of one instant happen in the order in which they were put down."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def clock(self) -> float:
        """The time now, for what asks for a clock."""
        return self.now

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        """Have ``event`` happen; at once where ``time_s`` has passed."""
        heapq.heappush(self._events, (max(time_s, self.now), next(self._numbers), event))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()


@dataclass(slots=True, eq=False, kw_only=True)
class VirtualRequest:
    """A request inside the engine. ``on_tokens`` is told of each new token; the last call says that it was the last."""

    prompt_tokens: int
    output_tokens: int
    on_token: Callable[[bool], None]
    made_tokens: int = 0
    scheduled: ScheduledRequest = field(init=False)


class VirtualEngine:
    """One engine on an agenda."""

    def __init__(self, profile: SimProfile, agenda: Agenda) -> None:
        self.highest_kv_use = 0.0
        self.after_step: Callable[[], None] = lambda: None
        self._profile = profile
        self._agenda = agenda
        self._scheduler = Scheduler(profile)
        self._requests: dict[ScheduledRequest, VirtualRequest] = {}
        self._is_stepping = False
        self._fresh_tokens = count()  # no prompt shares a prefix with another
        self._step_count = 0
        self._last_step_at = 0.0
        self._output_tokens = 0

    def submit(self, request: VirtualRequest) -> None:
        """Give the engine a request."""
        request.scheduled = ScheduledRequest(
            tokens=[next(self._fresh_tokens) for _ in range(request.prompt_tokens)],
            prompt_tokens=request.prompt_tokens,
            ready_at=self._agenda.now + self._profile.timing.request_overhead_s,
        )
        self._requests[request.scheduled] = request
        self._scheduler.add(request.scheduled)
        if not self._is_stepping:
            self._is_stepping = True
            self._agenda.at(self._agenda.now, self._begin_step)

    def load(self) -> EngineLoad:
        """As ``worker.engine.Engine.load``."""
        scheduler = self._scheduler
        return EngineLoad(
            free_blocks=scheduler.pool.free_blocks,
            reclaimable_blocks=scheduler.pool.reclaimable_blocks,
            running_requests=scheduler.running_requests,
            waiting_requests=scheduler.waiting_requests,
            preemptions=scheduler.preemptions,
            step_count=self._step_count,
            last_step_at=self._last_step_at,
            prompt_tokens_computed=scheduler.prompt_tokens_computed,
            output_tokens_generated=self._output_tokens,
        )

    def _begin_step(self) -> None:
        step = self._scheduler.plan(self._agenda.now)
        if step.chunks:
            duration_s = self._profile.timing.step_s(
                prefill_tokens=step.prefill_tokens, decode_requests=step.decode_requests
            )
            self._agenda.at(self._agenda.now + duration_s, lambda: self._end_step(step))
        elif (ready_at := self._scheduler.next_ready_at) is not None:
            self._agenda.at(ready_at, self._begin_step)
        else:
            self._is_stepping = False

    def _end_step(self, step: Step) -> None:
        self._step_count += 1
        self._last_step_at = self._agenda.now
        use = 1 - self._scheduler.pool.free_blocks / self._profile.total_blocks
        self.highest_kv_use = max(self.highest_kv_use, use)
        complete = self._scheduler.commit(step)
        self._output_tokens += len(complete)
        for scheduled in complete:
            request = self._requests[scheduled]
            request.made_tokens += 1
            is_last = request.made_tokens == request.output_tokens
            if is_last:
                self._scheduler.remove(scheduled)
                del self._requests[scheduled]
            else:
                scheduled.tokens.append(-1)
            request.on_token(is_last)
        self.after_step()
        self._begin_step()
