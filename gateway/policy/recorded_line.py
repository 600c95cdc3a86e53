"""A waiting line that tells of each of its decisions, and makes them again from what it told.

Its decisions follow from its state, and its state from all that it was ever asked. So what is told is each question
with its answer, from the first one on; asked the same again, an empty line with the same seed answers the same, to
the last bit. Whether a request fits somewhere is for the fleet to say: here that is part of the question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gateway.policy.elsewhere import GatewayQueue
from gateway.policy.record import Record
from gateway.policy.tenants import Tenants, TenantTerms
from gateway.policy.turn import Turn
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Refusal, WaitingLine

_WAITER_FIELDS = tuple(field.name for field in fields(Waiter))


@dataclass(frozen=True, slots=True, kw_only=True)
class LineTerms:
    """What a line is made of; it answers by this and by what it is asked."""

    max_bytes: int
    max_wait_s: float
    weights: Mapping[str, float]
    seed: int

    def __post_init__(self) -> None:
        """Keep the weights as they are written down: those of named tenants."""
        object.__setattr__(self, "weights", dict(self.weights))

    @property
    def all_weights(self) -> Mapping[str, float]:
        """Those of all tenants there can be."""
        terms = {tenant: TenantTerms(weight=weight) for tenant, weight in self.weights.items()}
        return Tenants(terms, trusts_claims=True, max_tenants=1).weights


class RecordedLine(WaitingLine):
    """Tells ``on_decision`` of every call."""

    def __init__(self, terms: LineTerms, line_id: int, on_decision: Callable[[Record], None]) -> None:
        """``line_id`` tells it from all other lines."""
        super().__init__(
            max_bytes=terms.max_bytes,
            max_wait_s=terms.max_wait_s,
            weights=terms.all_weights,
            rng=random.Random(terms.seed),
        )
        self._line_id = line_id
        self._on_decision = on_decision
        self.turn = _RecordedTurn(self._tell)
        self._tell("open", None, terms=asdict(terms))

    def offer(self, waiter: Waiter, supply: Supply, now: float) -> Refusal | list[Waiter]:
        """As ``WaitingLine.offer``."""
        asked = _plain(waiter)
        answer = super().offer(waiter, supply, now)
        self._tell("offer", plain_offer(waiter, answer), waiter=asked, supply=asdict(supply), now=now)
        return answer

    def pass_through(
        self, waiter: Waiter, fits: Callable[[Waiter], bool], supply: Callable[[], Supply], now: float
    ) -> bool:
        """As ``WaitingLine.pass_through``."""
        asked, tried, heard = _plain(waiter), Tried(fits), list[Supply]()

        def hear() -> Supply:
            heard.append(supply())
            return heard[-1]

        passes = super().pass_through(waiter, tried, hear, now)
        number = waiter.number if passes else None
        heard_supply = asdict(heard[-1]) if heard else None
        self._tell("pass_through", number, waiter=asked, fits=tried.answers, supply=heard_supply, now=now)
        return passes

    def next(self, fits: Callable[[Waiter], bool], now: float) -> Waiter | None:
        """As ``WaitingLine.next``."""
        tried = Tried(fits)
        served = super().next(tried, now)
        self._tell("next", plain_next(tried, served), fits=tried.answers, now=now)
        return served

    def put_back(self, waiter: Waiter, *, tokens: int | None = None) -> None:
        """As ``WaitingLine.put_back``."""
        super().put_back(waiter, tokens=tokens)
        self._tell("put_back", None, number=waiter.number, tokens=tokens, leaves_at=waiter.leaves_at)

    def least_critical(self, rank: int) -> Waiter | None:
        """As ``WaitingLine.least_critical``."""
        waiter = super().least_critical(rank)
        self._tell("least_critical", None if waiter is None else waiter.number, rank=rank)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """As ``WaitingLine.leave``."""
        super().leave(waiter)
        self._tell("leave", None, number=waiter.number)

    def expire(self, supply: Supply, now: float) -> list[Waiter]:
        """As ``WaitingLine.expire``."""
        gone = super().expire(supply, now)
        self._tell("expire", [waiter.number for waiter in gone], supply=asdict(supply), now=now)
        return gone

    def released(self, waiter: Waiter, tokens: int) -> None:
        """As ``WaitingLine.released``."""
        super().released(waiter, tokens)
        self._tell("released", None, number=waiter.number, tokens=tokens)

    def retry_after_s(self, waiter: Waiter, supply: Supply, now: float, *, worker_hint_s: float | None = None) -> float:
        """As ``WaitingLine.retry_after_s``."""
        hint_s = super().retry_after_s(waiter, supply, now, worker_hint_s=worker_hint_s)
        asked = {"number": waiter.number, "supply": asdict(supply), "now": now, "worker_hint_s": worker_hint_s}
        self._tell("retry_after", hint_s, **asked)
        return hint_s

    def _tell(self, call: str, outcome: Any, **arguments: Any) -> None:
        self._on_decision({"kind": "queue", "line": self._line_id, "call": call, **arguments, "outcome": outcome})


class _RecordedTurn(Turn):
    """The turn of a recorded line."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self._tell = tell

    def may_go(self, first: Waiter, elsewhere: Iterable[GatewayQueue], now: float) -> bool:
        """As ``Turn.may_go``."""
        queues = list(elsewhere)
        may_go = super().may_go(first, queues, now)
        self._tell("may_go", may_go, waiter=_plain(first), elsewhere=[asdict(queue) for queue in queues], now=now)
        return may_go

    def end(self) -> None:
        """As ``Turn.end``."""
        super().end()
        self._tell("end_turn", None)


class Tried:
    """Asks ``fits``, and keeps what it answered."""

    def __init__(self, fits: Callable[[Waiter], bool]) -> None:
        self._fits = fits
        self.answers: list[bool] = []
        self.asked: list[tuple[int, int]] = []  # the numbers of those asked for, with the headroom they had to leave

    def __call__(self, waiter: Waiter) -> bool:
        """Whether ``waiter`` fits."""
        self.asked.append((waiter.number, waiter.headroom_tokens))
        answer = self._fits(waiter)
        self.answers.append(answer)
        return answer


def plain_offer(waiter: Waiter, answer: Refusal | list[Waiter]) -> Any:
    """What ``offer`` has decided."""
    if isinstance(answer, Refusal):
        return asdict(answer) | {"bound": answer.bound.value}
    return {"number": waiter.number, "victims": [victim.number for victim in answer]}


def plain_next(tried: Tried, served: Waiter | None) -> Any:
    """Whom ``next`` has tried to serve, and whom it has served."""
    return {"asked": [list(one) for one in tried.asked], "served": None if served is None else served.number}


def _plain(waiter: Waiter) -> dict[str, Any]:
    return {name: getattr(waiter, name) for name in _WAITER_FIELDS}
