"""A breaker that tells of each of its verdicts, and makes them again from what it told.

As with a waiting line, a verdict follows from the state, and the state from all that has happened. What is told is each
event with what came of it, from the first one on. That a closed breaker lets a job pass, or that one succeeds there
after another, changes nothing, and is not told.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from gateway.policy.breaker import Breaker, BreakerLimits, BreakerState, Permit
from gateway.policy.record import MissingRecordError, Record


class RecordedBreaker(Breaker):
    """Tells ``on_decision`` of all that matters."""

    def __init__(
        self, limits: BreakerLimits, *, seed: int, labels: Record, on_decision: Callable[[Record], None]
    ) -> None:
        """``labels`` go into each record; with ``breaker`` among them, which tells it from all other breakers."""
        super().__init__(limits, random.Random(seed))
        self._labels = labels
        self._on_decision = on_decision
        self._tell("open", None, limits=asdict(limits), seed=seed)

    def can_take(self, now: float) -> bool:
        """As ``Breaker.can_take``."""
        if self.state is BreakerState.CLOSED:
            return super().can_take(now)
        may_pass = super().can_take(now)
        self._tell("can_take", _verdict(self, may_pass), now=now)
        return may_pass

    def take(self, now: float) -> Permit:
        """As ``Breaker.take``."""
        permit = super().take(now)
        if self.state is not BreakerState.CLOSED:
            self._tell("take", _verdict(self, permit.era), now=now)
        return permit

    def succeed(self, permit: Permit, now: float) -> None:
        """As ``Breaker.succeed``."""
        is_news = self.state is not BreakerState.CLOSED or self.has_failures
        super().succeed(permit, now)
        if is_news:
            self._tell("succeed", _verdict(self, None), era=permit.era, now=now)

    def fail(self, permit: Permit, now: float) -> bool:
        """As ``Breaker.fail``."""
        is_news = super().fail(permit, now)
        self._tell("fail", _verdict(self, is_news), era=permit.era, now=now)
        return is_news

    def ignore(self, permit: Permit) -> None:
        """As ``Breaker.ignore``."""
        super().ignore(permit)
        if self.state is not BreakerState.CLOSED:
            self._tell("ignore", _verdict(self, None), era=permit.era)

    def stall(self, now: float) -> None:
        """As ``Breaker.stall``."""
        super().stall(now)
        self._tell("stall", _verdict(self, None), now=now)

    def shake_hands(self, now: float) -> None:
        """As ``Breaker.shake_hands``."""
        super().shake_hands(now)
        self._tell("shake_hands", _verdict(self, None), now=now)

    def _tell(self, call: str, outcome: Any, **arguments: Any) -> None:
        self._on_decision({"kind": "breaker", **self._labels, "call": call, **arguments, "outcome": outcome})


class ReplayedBreakers:
    """All breakers of a log."""

    def __init__(self) -> None:
        self._breakers: dict[int, Breaker] = {}

    def answer(self, record: Record) -> Any:
        """What the breaker of this release answers. Raises ``MissingRecordError``."""
        if record["call"] == "open":
            limits = BreakerLimits(**record["limits"])
            self._breakers[record["breaker"]] = Breaker(limits, random.Random(record["seed"]))
            return None
        breaker = self._breakers.get(record["breaker"])
        if breaker is None:
            raise MissingRecordError(f"the beginning of breaker {record['breaker']} is not in the log")
        return _verdict(breaker, _CALLS[record["call"]](breaker, record))


def _take(breaker: Breaker, record: Record) -> int:
    if not breaker.can_take(record["now"]):
        raise MissingRecordError(f"the breaker is {breaker.state.value}, and lets no job pass")
    return breaker.take(record["now"]).era


_CALLS: dict[str, Callable[[Breaker, Record], Any]] = {
    "can_take": lambda breaker, record: breaker.can_take(record["now"]),
    "take": _take,
    "succeed": lambda breaker, record: breaker.succeed(Permit(era=record["era"]), record["now"]),
    "fail": lambda breaker, record: breaker.fail(Permit(era=record["era"]), record["now"]),
    "ignore": lambda breaker, record: breaker.ignore(Permit(era=record["era"])),
    "stall": lambda breaker, record: breaker.stall(record["now"]),
    "shake_hands": lambda breaker, record: breaker.shake_hands(record["now"]),
}


def _verdict(breaker: Breaker, answer: Any) -> dict[str, Any]:
    """What came of a call: its ``answer``, the state, and until when no job will pass."""
    return {"answer": answer, "state": breaker.state.value, "retry_at": breaker.retry_at}
