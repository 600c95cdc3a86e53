"""The policies that stand between arrivals and one virtual engine: who is let in, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from bench.overload.score import Answer
from bench.overload.trace import MAX_OUTPUT_TOKENS, Arrival
from bench.overload.virtual import Agenda, VirtualEngine, VirtualRequest
from worker.sim_profile import SimProfile

# Of the two seconds to the first token, what may be spent in line; the rest is for the prompt itself.
PATIENCE_S = 1.5


class Door(Protocol):
    """A policy at work."""

    def arrive(self, arrival: Arrival, answer: Answer) -> None:
        """A request comes in, now."""


class Bare:
    """No policy: the engine is given everything at once, and queues and preempts as it must."""

    def __init__(self, agenda: Agenda, engine: VirtualEngine) -> None:
        self._agenda = agenda
        self._engine = engine

    def arrive(self, arrival: Arrival, answer: Answer) -> None:
        """Let it in."""
        self._engine.submit(watched(arrival, answer, self._agenda, lambda _: None))


class Line:
    """First come, first served, into blocks reserved for prompt and output; whoever waits too long is refused."""

    def __init__(
        self, agenda: Agenda, engine: VirtualEngine, profile: SimProfile, expect: Callable[[Arrival], int]
    ) -> None:
        """``expect``: the output tokens to reserve for."""
        self._agenda = agenda
        self._engine = engine
        self._block_size = profile.block_size
        self._free_blocks = profile.total_blocks
        self._expect = expect
        self._waiting: deque[tuple[Arrival, Answer]] = deque()

    def arrive(self, arrival: Arrival, answer: Answer) -> None:
        """Join the line, unless its head shows that nobody gets through in time."""
        self._expire()
        if self._waiting and self._agenda.now - self._waiting[0][0].arrival_s > PATIENCE_S:
            answer.refused_at = self._agenda.now
            return
        self._waiting.append((arrival, answer))
        self._let_in()

    def _let_in(self) -> None:
        self._expire()
        while self._waiting:
            arrival, answer = self._waiting[0]
            blocks = -(-(arrival.prompt_tokens + self._expect(arrival)) // self._block_size)
            if blocks > self._free_blocks:
                return
            self._waiting.popleft()
            self._free_blocks -= blocks
            self._engine.submit(watched(arrival, answer, self._agenda, self._leave(blocks)))

    def _leave(self, blocks: int) -> Callable[[bool], None]:
        def after_token(is_last: bool) -> None:  # noqa: FBT001 - the engine calls it so
            if is_last:
                self._free_blocks += blocks
                self._let_in()

        return after_token

    def _expire(self) -> None:
        while self._waiting and self._agenda.now - self._waiting[0][0].arrival_s > PATIENCE_S:
            _, answer = self._waiting.popleft()
            answer.refused_at = self._agenda.now
            answer.has_waited = True


def cap(arrival: Arrival) -> int:
    """Reserve what the request asks for at most."""
    del arrival
    return MAX_OUTPUT_TOKENS


def oracle(arrival: Arrival) -> int:
    """Reserve what the output will turn out to be."""
    return arrival.output_tokens


def watched(arrival: Arrival, answer: Answer, agenda: Agenda, after_token: Callable[[bool], None]) -> VirtualRequest:
    """A request for the engine that writes its ``answer``, and then calls ``after_token``."""

    def on_token(is_last: bool) -> None:  # noqa: FBT001 - the engine calls it so
        if answer.first_token_at is None:
            answer.first_token_at = agenda.now
        answer.last_token_at = agenda.now
        answer.output_tokens += 1
        answer.is_complete = is_last
        after_token(is_last)

    return VirtualRequest(prompt_tokens=arrival.prompt_tokens, output_tokens=arrival.output_tokens, on_token=on_token)
