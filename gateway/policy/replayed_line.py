"""Asks empty waiting lines all that recorded ones were asked (``gateway.policy.recorded_line``)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from gateway.policy.elsewhere import GatewayQueue
from gateway.policy.record import MissingRecordError, Record
from gateway.policy.recorded_line import LineTerms, Tried, plain_next, plain_offer
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import WaitingLine


class ReplayedLines:
    """All lines of a log."""

    def __init__(self) -> None:
        self._lines: dict[int, _ReplayedLine] = {}

    def answer(self, record: Record) -> Any:
        """What the line of this release answers. Raises ``MissingRecordError``."""
        if record["call"] == "open":
            self._lines[record["line"]] = _ReplayedLine(LineTerms(**record["terms"]))
            return None
        line = self._lines.get(record["line"])
        if line is None:
            raise MissingRecordError(f"the beginning of line {record['line']} is not in the log")
        return line.answer(record)


class _ReplayedLine:
    def __init__(self, terms: LineTerms) -> None:
        self._line = WaitingLine(
            max_bytes=terms.max_bytes,
            max_wait_s=terms.max_wait_s,
            weights=terms.all_weights,
            rng=random.Random(terms.seed),
        )
        self._waiters: dict[int, Waiter] = {}  # by number, until they are released
        self._answers: dict[str, Callable[[Record], Any]] = {
            "offer": self._offer,
            "pass_through": self._pass_through,
            "next": self._next,
            "put_back": self._put_back,
            "least_critical": self._least_critical,
            "leave": self._leave,
            "expire": self._expire,
            "released": self._released,
            "retry_after": self._retry_after,
            "may_go": self._may_go,
            "end_turn": self._end_turn,
        }

    def answer(self, record: Record) -> Any:
        return self._answers[record["call"]](record)

    def _offer(self, record: Record) -> Any:
        waiter = Waiter(**record["waiter"])
        answer = self._line.offer(waiter, Supply(**record["supply"]), record["now"])
        self._waiters[waiter.number] = waiter
        return plain_offer(waiter, answer)

    def _pass_through(self, record: Record) -> Any:
        waiter = Waiter(**record["waiter"])
        if not self._line.pass_through(waiter, _recorded_fits(record), lambda: _supply(record), record["now"]):
            return None
        self._waiters[waiter.number] = waiter
        return waiter.number

    def _next(self, record: Record) -> Any:
        tried = Tried(_recorded_fits(record))
        return plain_next(tried, self._line.next(tried, record["now"]))

    def _put_back(self, record: Record) -> None:
        waiter = self._waiter(record)
        waiter.leaves_at = record["leaves_at"]
        self._line.put_back(waiter, tokens=record["tokens"])

    def _least_critical(self, record: Record) -> Any:
        waiter = self._line.least_critical(record["rank"])
        return None if waiter is None else waiter.number

    def _leave(self, record: Record) -> None:
        self._line.leave(self._waiter(record))

    def _expire(self, record: Record) -> Any:
        return [waiter.number for waiter in self._line.expire(Supply(**record["supply"]), record["now"])]

    def _released(self, record: Record) -> None:
        self._line.released(self._waiter(record), record["tokens"])
        del self._waiters[record["number"]]

    def _retry_after(self, record: Record) -> Any:
        waiter, supply, hint_s = self._waiter(record), Supply(**record["supply"]), record["worker_hint_s"]
        return self._line.retry_after_s(waiter, supply, record["now"], worker_hint_s=hint_s)

    def _may_go(self, record: Record) -> Any:
        elsewhere = [GatewayQueue(**queue) for queue in record["elsewhere"]]
        return self._line.turn.may_go(Waiter(**record["waiter"]), elsewhere, record["now"])

    def _end_turn(self, record: Record) -> None:
        del record
        self._line.turn.end()

    def _waiter(self, record: Record) -> Waiter:
        waiter = self._waiters.get(record["number"])
        if waiter is None:
            raise MissingRecordError(f"request {record['number']} was not let in here")
        return waiter


def _supply(record: Record) -> Supply:
    """What was heard then of the supply."""
    if record["supply"] is None:
        raise MissingRecordError("nobody asked for the supply then")
    return Supply(**record["supply"])


def _recorded_fits(record: Record) -> Callable[[Waiter], bool]:
    """Answers as the fleet did then; once more was asked than then, nothing fits."""
    answers = iter(record["fits"])
    return lambda _: next(answers, False)
