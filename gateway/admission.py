"""Bounds the calls that this gateway holds. A permit lasts as long as its call, to the last token of its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import AdmissionQueueFullError, DrainingError
from gateway.policy.limit import Limit

_DRAINING_RETRY_S = 1.0


class Admission:
    """The door of the gateway."""

    def __init__(self, calls: Limit) -> None:
        self._calls = calls
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Hold a permit. Raises ``AdmissionQueueFullError``, or ``DrainingError`` once the door is closed."""
        if self._is_closed:
            raise DrainingError("this gateway is shutting down", retry_after_s=_DRAINING_RETRY_S)
        if not self._calls.can_take():
            raise AdmissionQueueFullError(
                f"{self._calls.total} calls are in flight",
                metadata={"limit": str(self._calls.total)},
                retry_after_s=self._calls.retry_after_s(),
            )
        self._calls.take()
        self._idle.clear()
        try:
            yield
        finally:
            self._calls.give_back()
            if not self._calls.in_use:
                self._idle.set()

    @property
    def is_full(self) -> bool:
        """Whether the next call will be refused, unless one ends before."""
        return not self._calls.can_take()

    @property
    def calls_in_flight(self) -> int:
        """Calls that hold a permit."""
        return self._calls.in_use

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_closed = True

    async def until_idle(self) -> None:
        """Wait until no call is held."""
        await self._idle.wait()
