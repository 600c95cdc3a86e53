"""Blocks that several requests hold in common, each counted once. Pure.

A block is known by what it holds (``worker.prefix``). It is entered here when a request's prompt has been computed, and
leaves with the last request that holds it. Whether the engine finds it in its prefix cache is for the engine to say:
what is assumed at a request's admission is confirmed, or taken back, with its first output.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile


class SharedBlocks:
    """Who holds what. All names are of one engine's blocks."""

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        # Whether the engine last found what was here to be found. One without a prefix cache never does.
        self._is_trusted = False

    @property
    def blocks(self) -> int:
        """Blocks that at least one request holds."""
        return len(self._holders)

    @property
    def is_trusted(self) -> bool:
        """Whether a new request can be expected to share what is known."""
        return self._is_trusted

    def known(self, names: Sequence[int]) -> list[int]:
        """The first of ``names``, as far as requests hold them."""
        return list(takewhile(self._holders.__contains__, names))

    def hold(self, names: Sequence[int]) -> None:
        """One more request holds the blocks, entered now or before."""
        for name in names:
            self._holders[name] = self._holders.get(name, 0) + 1

    def let_go(self, names: Sequence[int]) -> None:
        """A request that held the blocks holds them no more."""
        for name in names:
            self._holders[name] -= 1
            if not self._holders[name]:
                del self._holders[name]

    def confirm(self, names: Sequence[int], *, known: int, held: int, cached: int) -> list[int]:
        """A request has computed a prompt of blocks ``names``, save the first ``cached``, which were there already.

        The first ``known`` were here at its admission, and the first ``held`` of them, all or none, it was let share.
        Returns those that it holds here from now on.
        """
        if known:
            self._is_trusted = cached >= known
        self.let_go(names[cached:held])
        # Beyond what the engine found, it has made a copy of what other requests hold: that is the request's own.
        end = len(names) if cached >= len(self.known(names)) else cached
        self.hold(names[min(held, cached) : end])
        return list(names[:end])
