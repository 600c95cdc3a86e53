"""Stop strings: where a text ends that arrives in pieces, and how much of it may be shown before that is known."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Cuts a growing text before the first of its stop strings: the one that is complete first, however it arrives.

    Text that may turn out to be the beginning of a stop string is held back, so that no part of one is ever shown.
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self._stop_strings = tuple(stop_strings)
        self._held = ""

    def push(self, piece: str) -> tuple[str, str | None]:
        """Add ``piece``; returns the text that may now be shown, and the stop string that was found, if any."""
        if not self._stop_strings:
            return piece, None
        text = self._held + piece
        found = [(at, stop) for stop in self._stop_strings if (at := text.find(stop)) >= 0]
        if found:
            at, stop = min(found, key=lambda hit: hit[0] + len(hit[1]))  # of several, the one that was named first
            self._held = ""
            return text[:at], stop
        shown = len(text) - self._longest_beginning(text)
        self._held = text[shown:]
        return text[:shown], None

    def flush(self) -> str:
        """The text held back, once it is known that no more will come."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """Length of the longest end of ``text`` with which a stop string begins."""
        longest = min(len(text), max(map(len, self._stop_strings)) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop_strings):
                return length
        return 0
