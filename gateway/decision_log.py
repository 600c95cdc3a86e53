"""Writes decisions down, one JSON object a line, for ``tidegate replay``; at debug level they go to the log, too.

A disk that is full or gone costs lines of this file, and nothing else: no call, and not the gateway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import NoReturn

from gateway.policy.record import Record

_LOGGER = logging.getLogger(__name__)

_FLUSH_INTERVAL_S = 1.0
# So many lines may wait for a disk that is slow; further ones are lost.
_MAX_WAITING = 20_000


class DecisionLog:
    """Made once; ``close`` it. Without a path nothing is written, and without debug level nothing is recorded."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        """``path`` is appended to, by whole lines: other processes may do the same. Raises ``OSError``."""
        self.counts: Counter[str] = Counter()  # of records, by kind
        self.lost = 0  # lines that were not written
        self._path = path
        self._file = path.open("ab", buffering=0) if path is not None else None
        self._clock = clock
        self._lines: deque[str] = deque()
        self._writing = Lock()
        self._is_torn = False  # the file's last line has no end
        self._is_failing = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody reads what is recorded; to make a record costs time."""
        return self._file is not None or _LOGGER.isEnabledFor(logging.DEBUG)

    def record(self, decision: Record) -> None:
        """A decision was made now."""
        self.counts[decision["kind"]] += 1
        line = json.dumps({"at_s": self._clock(), **decision}, separators=(",", ":"))
        _LOGGER.debug("decision %s", line)
        if self._file is None:
            return
        if len(self._lines) < _MAX_WAITING:
            self._lines.append(line)
        else:
            self.lost += 1

    async def run(self) -> NoReturn:
        """Keep the file up to date, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_INTERVAL_S)
            if self._lines:
                await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what has been recorded so far. From any thread; blocks."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if self._file is None or not lines:
                return
            try:
                self._write(self._file.fileno(), "".join(f"{line}\n" for line in lines).encode())
            except OSError as error:
                self.lost += len(lines)
                if not self._is_failing:
                    _LOGGER.warning("decisions cannot be written to %s and are lost: %s", self._path, error.strerror)
                self._is_failing = True
                return
            if self._is_failing:
                self._is_failing = False
                _LOGGER.warning("decisions are written to %s again; %d were lost", self._path, self.lost)

    def _write(self, descriptor: int, text: bytes) -> None:
        """At the end of the file; mostly by one write, so that nothing of other processes comes in between."""
        left = memoryview(b"\n" + text if self._is_torn else text)
        while left:
            written = os.write(descriptor, left)
            self._is_torn = written < len(left)
            left = left[written:]

    def close(self) -> None:
        """Write what is left; what is recorded from here on is not."""
        self.flush()
        with self._writing:
            file, self._file = self._file, None
            if file is not None:
                file.close()
