"""Writes decisions down, one JSON object a line, for ``tidegate replay``; at debug level they go to the log, too."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gateway.policy.record import Record

_LOGGER = logging.getLogger(__name__)

_FLUSH_INTERVAL_S = 1.0


class DecisionLog:
    """Made once; ``close`` it. Without a path nothing is written, and without debug level nothing is recorded."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        """``path`` is appended to. Raises ``OSError``."""
        self.counts: Counter[str] = Counter()  # of records, by kind
        self._file = path.open("a", encoding="utf-8") if path is not None else None
        self._clock = clock

    @property
    def is_wanted(self) -> bool:
        """Whether somebody reads what is recorded; to make a record costs time."""
        return self._file is not None or _LOGGER.isEnabledFor(logging.DEBUG)

    def record(self, decision: Record) -> None:
        """A decision was made now."""
        self.counts[decision["kind"]] += 1
        line = json.dumps({"at_s": self._clock(), **decision}, separators=(",", ":"))
        _LOGGER.debug("decision %s", line)
        if self._file is not None:
            self._file.write(line + "\n")

    async def run(self) -> NoReturn:
        """Keep the file up to date, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_INTERVAL_S)
            if self._file is not None:
                await asyncio.to_thread(self._file.flush)

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.close()
