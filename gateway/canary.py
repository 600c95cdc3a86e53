"""Proves that this gateway renders and tokenises as a worker does, by the conversations of its handshake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from gateway.chat_prompt import parse_chat
from gateway.errors import GatewayError
from gateway.renderer import Renderer
from gateway.violations import Violations
from tidegate.worker.v1 import worker_service_pb2

# The date that a template sees while canaries are rendered, here and by the reference: they have to agree on any day.
CANARY_TIME = datetime(2025, 1, 1)  # noqa: DTZ001 - strftime_now is naive, as in transformers

_SHOWN = 24  # items on either side of the difference


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryDivergence:
    """Where a canary first differs. ``what`` is "rendered_prompt", "token_ids" or "chat" (refused here)."""

    canary: str
    what: str
    position: int
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"canary {self.canary!r}: {self.what} at {self.position}: {self.expected} expected, got {self.actual}"


def diverging_canary(renderer: Renderer, canaries: Iterable[worker_service_pb2.Canary]) -> CanaryDivergence | None:
    """The first canary of which this gateway makes something else than the worker, or None."""
    renderer = renderer.with_clock(lambda: CANARY_TIME)
    for canary in canaries:
        violations = Violations()
        chat = parse_chat(canary.chat, violations)
        try:
            violations.raise_if_any()
            prompt = renderer.prompt(chat)
        except GatewayError as error:
            return CanaryDivergence(
                canary=canary.name, what="chat", position=0, expected="a prompt", actual=f"the error {error}"
            )
        for what, expected, actual in (
            ("rendered_prompt", canary.rendered_prompt, prompt.rendered_prompt),
            ("token_ids", list(canary.token_ids), list(prompt.token_ids)),
        ):
            position = _first_difference(expected, actual)
            if position is not None:
                shown = slice(max(0, position - _SHOWN), position + _SHOWN)
                return CanaryDivergence(
                    canary=canary.name,
                    what=what,
                    position=position,
                    expected=ascii(expected[shown]),
                    actual=ascii(actual[shown]),
                )
    return None


def _first_difference(expected: Sequence[object], actual: Sequence[object]) -> int | None:
    if expected == actual:
        return None
    pairs = zip_longest(expected, actual, fillvalue=object())
    return next(position for position, (one, other) in enumerate(pairs) if one != other)
