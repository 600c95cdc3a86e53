"""The recent traffic of one model: how its prompts are distributed and, where that is asked for, some of them.

Memory is bounded and the past fades: whenever the histogram is full, every count in it is halved, and so is the number
of requests that the reservoir believes to have seen. What is told is then of the last one to two windows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.prompt_histogram import PROMPT_TOKEN_EDGES, TURN_EDGES, PromptHistogram, bucket_of, stability_index

WINDOW_REQUESTS = 10_000
# Of fewer requests the index says more about chance than about them.
_FEWEST_REQUESTS = 100

Document = Mapping[str, Any]
"""A prompt in the form in which a sketch holds it."""


class Traffic:
    """A histogram of everything noted, and a reservoir of ``reservoir_size`` documents: an even choice from it all."""

    def __init__(self, *, reservoir_size: int, rng: random.Random, window_requests: int = WINDOW_REQUESTS) -> None:
        self._reservoir_size = reservoir_size
        self._rng = rng
        self._window_requests = window_requests
        self._counts = [[0] * (len(TURN_EDGES) + 1) for _ in range(len(PROMPT_TOKEN_EDGES) + 1)]
        self._total = 0
        self._reservoir: list[Document] = []
        self._offered = 0

    @property
    def histogram(self) -> PromptHistogram:
        """The counts as they are now."""
        return PromptHistogram(counts=tuple(map(tuple, self._counts)))

    @property
    def reservoir(self) -> Sequence[Document]:
        """The documents chosen so far."""
        return tuple(self._reservoir)

    def note(self, *, prompt_tokens: int, turns: int, document: Callable[[], Document | None]) -> None:
        """Count a request. ``document`` is called only if the reservoir takes it; None is something it cannot hold."""
        row, column = bucket_of(prompt_tokens=prompt_tokens, turns=turns)
        self._counts[row][column] += 1
        self._total += 1
        if self._reservoir_size:
            self._offer(document)
        if self._total >= 2 * self._window_requests:
            self._fade()

    def drift(self, calibration: PromptHistogram) -> float | None:
        """The stability index of this traffic against ``calibration``; None while it would be chance."""
        if self._total < _FEWEST_REQUESTS or not calibration.total:
            return None
        return stability_index(calibration, self.histogram)

    def _offer(self, document: Callable[[], Document | None]) -> None:
        """Vitter's algorithm R: the n-th request enters with probability size / n, in a random one's place."""
        self._offered += 1
        place = len(self._reservoir)
        if place == self._reservoir_size:
            place = int(self._rng.random() * max(self._offered, self._reservoir_size))
            if place >= self._reservoir_size:
                return
        taken = document()
        if taken is None:
            self._offered -= 1
        else:
            self._reservoir[place : place + 1] = [taken]

    def _fade(self) -> None:
        self._counts = [[count // 2 for count in row] for row in self._counts]
        self._total = sum(map(sum, self._counts))
        self._offered //= 2
