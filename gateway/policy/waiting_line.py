"""The waiting room of one model, as a decision: who may wait, who goes next, who leaves, and when to come back.

Whoever drives it calls ``offer`` for a newcomer, ``next`` whenever there may be room, ``expire`` when time has passed,
and ``released`` when a job has ended. The clock is the caller's: seconds, and only their differences count.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.policy.headroom import Headroom
from gateway.policy.queue import Queue
from gateway.policy.turn import Turn
from gateway.policy.wait_forecast import Forecast, Supply, forecast, forecast_of_return
from gateway.policy.waiter import Waiter

# Bounds of the advice when to come back, in seconds, and the advice while nothing is known of the drain.
MIN_RETRY_S, MAX_RETRY_S, UNKNOWN_RETRY_S = 0.05, 30.0, 1.0
# Added to the advice by chance, up to this share: what was refused together is not to return together.
_JITTER = 0.1
# Half of all forecasts are off by a tenth, some by a third. Who is let in shall have its turn, and not be sent away
# after a wait.
_SAFETY = 0.75
# A forecast that was good enough to let somebody in has to become so much worse before it sends him away.
_HYSTERESIS = 1.25
_SWEEP_INTERVAL_S = 0.1
# A forecast looks at all tenants of a class, so that one for each of a thousand would take most of a second. A sweep
# takes so many looks at most, and the next one goes on where it ended.
_SWEEP_LOOKS = 10_000


class Bound(Enum):
    """What a request met that did not get to a worker. The names travel as ErrorInfo.metadata["limit"]."""

    QUEUE_BYTES = "queue_bytes"
    MAX_WAIT = "max_wait"
    DEADLINE = "deadline"
    IN_FLIGHT = "max_in_flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request may not wait. ``predicted_wait_s`` is None while nothing is known of the drain.

    With ``passing_wait_s`` to spend it might have.
    """

    bound: Bound
    predicted_wait_s: float | None
    allowed_wait_s: float
    passing_wait_s: float
    retry_after_s: float


class WaitingLine:
    """Everything that waits for workers of one model."""

    def __init__(self, *, max_bytes: int, max_wait_s: float, weights: Mapping[str, float], rng: random.Random) -> None:
        """Nobody waits longer than ``max_wait_s``; ``weights`` are tenants' shares, 1 where none is given."""
        self.max_wait_s = max_wait_s
        self.queue = Queue(max_bytes=max_bytes, weights=weights)
        self.turn = Turn()  # beside other gateways
        self._headroom = Headroom(self.queue, weights)
        self._rng = rng
        self._swept_at = float("-inf")
        self._swept_lines = 0  # of tenants, by a sweep that has not come to its end

    def offer(self, waiter: Waiter, supply: Supply, now: float) -> Refusal | list[Waiter]:
        """Let ``waiter`` wait, and name those that had to go for it; or say why it may not."""
        self.queue.classes[waiter.rank].ask(waiter, now)
        self._headroom.hear(supply, now)
        self._headroom.set_for(waiter, now)
        predicted = forecast(waiter, self.queue, supply, now)
        if not self._may_wait(waiter, predicted, now):
            return self._refusal(waiter, self.bound_of(waiter), predicted, now)
        victims = self.queue.victims(waiter)
        if victims is None:
            return self._refusal(waiter, Bound.QUEUE_BYTES, predicted, now)
        for victim in victims:
            self.queue.remove(victim)
        self.queue.add(waiter, now)
        return victims

    @property
    def asked_per_s(self) -> Sequence[tuple[str, float]]:
        """What tenants ask of this gateway, in tokens per second, for other gateways to know. Empty while it is one."""
        return self._headroom.asked_per_s

    def pass_through(
        self, waiter: Waiter, fits: Callable[[Waiter], bool], supply: Callable[[], Supply], now: float
    ) -> bool:
        """Whether ``waiter`` goes to a worker at once: nobody waits, and it ``fits`` now beside its headroom.

        It comes to the same as ``offer`` and ``next``, at a fraction of their cost; ``supply`` is asked only now and
        then. Where the answer is no, nothing has happened yet.
        """
        if self.queue or waiter.leaves_at <= now or waiter.size_bytes > self.queue.max_bytes:
            return False
        if self._headroom.is_stale(now):
            self._headroom.hear(supply(), now)
        self._headroom.set_for(waiter, now)
        if not fits(waiter):
            return False
        self.queue.classes[waiter.rank].ask(waiter, now)
        self.queue.pass_through(waiter, now)
        self._headroom.take(waiter)
        return True

    def next(self, fits: Callable[[Waiter], bool], now: float) -> Waiter | None:
        """The next to go to a worker, if it ``fits`` somewhere now beside its headroom. Ask until None comes back."""

        def fits_with_headroom(head: Waiter) -> bool:
            self._headroom.set_for(head, now)
            return fits(head)

        waiter = self.queue.pop(fits_with_headroom)
        if waiter is not None:
            self._headroom.take(waiter)
        return waiter

    def put_back(self, waiter: Waiter, *, tokens: int | None = None) -> None:
        """A worker had no room after all for one that ``next`` gave: it has its old place again.

        ``tokens`` is what the worker said it needs, if it did.
        """
        self._headroom.give_back(waiter)
        self.queue.put_back(waiter, tokens=waiter.tokens if tokens is None else tokens)

    def least_critical(self, rank: int) -> Waiter | None:
        """The last of those that wait and are less critical than ``rank``."""
        return self.queue.least_critical(rank)

    def leave(self, waiter: Waiter) -> None:
        """``waiter`` has given up; no matter if it waits no more."""
        self.queue.remove(waiter)

    def expire(self, supply: Supply, now: float) -> list[Waiter]:
        """Send away those whose time is over, and now and then those who can no longer be in time."""
        self._headroom.hear(supply, now)
        gone = self.queue.expire(now)
        if now - self._swept_at >= _SWEEP_INTERVAL_S:
            self._swept_at = now
            gone += self._hopeless(supply, now)
        return gone

    def released(self, waiter: Waiter, tokens: int) -> None:
        """The job of ``waiter``, which ``next`` gave, has ended and has used ``tokens``: prompt and output."""
        self._headroom.give_back(waiter)
        self.queue.classes[waiter.rank].settle(waiter.tenant, expected_tokens=waiter.tokens, tokens=tokens)

    def predicted_wait_s(self, waiter: Waiter, supply: Supply, now: float) -> float | None:
        """How long ``waiter`` will wait from now on; None while nothing is known of the drain."""
        return forecast(waiter, self.queue, supply, now).room_s

    def predicted_clearance_s(self, supply: Supply) -> float | None:
        """How long it will take until all have gone that wait now; None while nothing is known of the drain."""
        missing = self.queue.tokens - supply.free_tokens
        if not self.queue or missing <= 0:
            return 0.0
        rate = supply.tokens_per_s
        return missing / (rate * supply.share_of(self.queue.tokens)) if rate else None

    def retry_after_s(self, waiter: Waiter, supply: Supply, now: float, *, worker_hint_s: float | None = None) -> float:
        """When ``waiter``, which was let in and sent away, had better come back: when it would be served behind all.

        ``worker_hint_s``: when a worker that refused it expected to have its room. It knows nothing of the others.
        """
        predicted_s = forecast_of_return(waiter, self.queue, supply, now).room_s
        if predicted_s is None and worker_hint_s is not None:
            return min(MAX_RETRY_S, worker_hint_s * (1 + self.queue.tokens / waiter.tokens))
        return self._retry_after_s(predicted_s)

    def bound_of(self, waiter: Waiter) -> Bound:
        """Which bound makes ``waiter`` leave when it does."""
        return Bound.DEADLINE if waiter.leaves_at < waiter.arrived_at + self.max_wait_s else Bound.MAX_WAIT

    def _may_wait(self, waiter: Waiter, predicted: Forecast, now: float) -> bool:
        """Whether its turn comes in good time, and its room before it has to leave.

        Were it all one sum, a line that is nearly full would let in short requests alone: the next gap is theirs.
        """
        left_s = waiter.leaves_at - now
        if left_s <= 0:  # it may not even ask whether there is room
            return False
        if predicted.turn_s is None or predicted.room_s is None:
            return True
        return predicted.turn_s <= _SAFETY * left_s and predicted.room_s <= left_s

    def _refusal(self, waiter: Waiter, bound: Bound, predicted: Forecast, now: float) -> Refusal:
        return Refusal(
            bound=bound,
            predicted_wait_s=predicted.room_s,
            allowed_wait_s=max(0.0, _SAFETY * (waiter.leaves_at - now)),
            passing_wait_s=max((predicted.turn_s or 0.0) / _SAFETY, predicted.room_s or 0.0),
            retry_after_s=self._retry_after_s(predicted.room_s),
        )

    def _retry_after_s(self, predicted_s: float | None) -> float:
        wait_s = UNKNOWN_RETRY_S if predicted_s is None else predicted_s
        return min(MAX_RETRY_S, max(MIN_RETRY_S, wait_s * (1 + self._rng.uniform(0, _JITTER))))

    def _hopeless(self, supply: Supply, now: float) -> list[Waiter]:
        """Those at the ends of their lines whose wait will be too long. Nobody behind them was let in for less."""
        gone: list[Waiter] = []
        lines = [(flows, flow) for flows in self.queue.classes for _, flow in flows]
        swept, looks = self._swept_lines, 0
        while swept < len(lines) and looks < _SWEEP_LOOKS:
            flows, flow = lines[swept]
            looks += flows.tenant_count
            wait_s = forecast(flow.tail, self.queue, supply, now).room_s
            if wait_s is None or wait_s <= _HYSTERESIS * (flow.tail.leaves_at - now):
                swept += 1
                continue
            gone.append(flow.tail)
            self.queue.remove(flow.tail)
            if not flow:
                del lines[swept]
        self._swept_lines = swept if swept < len(lines) else 0
        return gone
