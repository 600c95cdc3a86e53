"""hpack's dynamic table, watched."""

from __future__ import annotations

from hpack.table import HeaderTable


class WatchedTable(HeaderTable):
    """Counts its insertions: between two of them equal blocks mean equal fields."""

    insertions = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Insert an entry."""
        self.insertions += 1
        super().add(name, value)
