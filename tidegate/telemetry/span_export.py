"""Sends spans to an OTLP collector from a thread of its own, and counts what becomes of them.

A collector that is dead or too slow costs spans, and next to nothing else: once the queue is full no further trace is
recorded, between batches that failed there are pauses, which grow, and after the second next to nothing is recorded.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
)
from opentelemetry.sdk.trace.export import SpanExportResult

from tidegate.telemetry.otlp import write
from tidegate.telemetry.spans import Span

_LOGGER = logging.getLogger(__name__)

SENT, FAILED, DROPPED = "sent", "failed", "dropped"

# So many spans are written one after the other, in a fraction of a millisecond: what writes them then stands in the
# processor's cache, and takes half of what it takes for one span between two requests.
_WRITTEN_AT_ONCE = 256
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# A collector that has failed twice is asked again with so many, and no more is recorded for it.
_ASKED_WITH = 64
# What a shutdown waits for a collector that answers late or not at all; and then for the thread to notice.
_SHUTDOWN_S, _NOTICE_S = 5.0, 30.0


class Exporter(Protocol):
    """Sends a batch, with retries; blocks."""

    def export(self, spans: Sequence[Any], /) -> SpanExportResult:
        """Whether the collector took it; ``spans`` are as ``otlp.write`` has written them."""

    def shutdown(self) -> None:
        """Give up what is being sent."""


def _number(variable: str, default: int) -> int:
    """What OpenTelemetry's variable says, if it is a number from 1; otherwise its default, as for a sampler."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        _LOGGER.warning("%s=%s is no number from 1: %d", variable, text, default)
        return default
    return number


class SpanExport:
    """The queue of ended spans, and the thread that sends them. From any thread."""

    def __init__(self, exporter: Exporter) -> None:
        """Queue, batches and delay are as OpenTelemetry's variables (OTEL_BSP_...) say, for which it has defaults."""
        self._exporter = exporter
        self._capacity = _number(OTEL_BSP_MAX_QUEUE_SIZE, 2048)
        self._batch = _number(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, 512)
        self._delay_s = _number(OTEL_BSP_SCHEDULE_DELAY, 5000) / 1e3
        self._room = self._capacity  # for further traces
        self.cohort = min(_WRITTEN_AT_ONCE, self._batch)
        self.ended: deque[Span] = deque()
        self._queue: deque[bytes] = deque()  # those that are written
        self._counts = dict.fromkeys((SENT, FAILED, DROPPED), 0)
        self._unwritable = 0
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._sender = threading.Thread(target=self._run, name="spans", daemon=True)
        self._sender.start()

    @property
    def counts(self) -> Mapping[str, int]:
        """Spans so far, by what became of them; a trace that was not recorded counts as one."""
        if not self._capacity:  # nobody is to write any more
            self._write()
        return self._counts

    def has_room(self) -> bool:
        """See ``spans.SpanSink``."""
        if len(self._queue) + len(self.ended) < self._room:
            return True
        self._counts[DROPPED] += 1
        return False

    def take(self) -> None:
        """See ``spans.SpanSink``."""
        self._write()
        if len(self._queue) >= self._batch and not self._wake.is_set():
            self._wake.set()

    def _write(self) -> None:
        """From either thread; but while there is much to do, from the one in which spans end.

        The two would take the interpreter from one another, which costs more than the writing.
        """
        ended, queue = self.ended, self._queue
        while ended:
            try:
                span = ended.popleft()
            except IndexError:  # the other thread has taken it
                return
            if len(queue) >= self._capacity:
                self._counts[DROPPED] += 1
                continue
            try:
                queue.append(write(span))
            except Exception as error:  # noqa: BLE001 - whatever it was, the call that ends this span goes on
                self._give_up(span, error)

    def _give_up(self, span: Span, error: Exception) -> None:
        self._counts[FAILED] += 1
        self._unwritable += 1
        if not self._unwritable & (self._unwritable - 1):  # ever more seldom: each may be like the one before
            _LOGGER.warning("span %s cannot be written: %s (%d so far)", span.name, error, self._unwritable)

    def flush(self) -> None:
        """Send what has ended so far. Blocks; gives up when the collector does not take it."""
        self._write()
        with self._sending:
            while self._queue and self._send():
                pass

    def shutdown(self) -> None:
        """Send what is left, and end. Blocks, for seconds when the collector does not answer."""
        self._closing.set()
        self._wake.set()
        self._sender.join(_SHUTDOWN_S)
        self._exporter.shutdown()  # what is being sent is given up
        self._sender.join(_NOTICE_S)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            is_full = self._wake.wait(0 if pause_s else self._delay_s)
            self._wake.clear()
            if not is_full:
                self._write()
            is_taken = self._send_batches(least=self._batch if is_full else 1)
            pause_s = 0.0 if is_taken else min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            is_down = pause_s > _FIRST_PAUSE_S
            self._room = min(_ASKED_WITH, self._capacity) if is_down else self._capacity
            if pause_s:
                _LOGGER.warning("no spans are sent for %.0f s; so far: %s", pause_s, self._counts)
        if not pause_s:
            self.flush()
        self._capacity = self._room = 0
        self._counts[DROPPED] += len(self._queue)
        self._queue.clear()

    def _send_batches(self, *, least: int) -> bool:
        """While there are so many spans; whether the collector took them."""
        with self._sending:
            while len(self._queue) >= least and not self._closing.is_set():
                if not self._send():
                    return False
        return True

    def _send(self) -> bool:
        batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
        try:
            is_taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # it would end the thread, and with it all sending
            _LOGGER.exception("the exporter of spans broke")
            is_taken = False
        self._counts[SENT if is_taken else FAILED] += len(batch)
        return is_taken
