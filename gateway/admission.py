"""Bounds the calls that this gateway holds. A permit lasts as long as its call, to the last token of its stream."""

from __future__ import annotations

import asyncio
from types import TracebackType

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

    def admit(self) -> Permit:
        """A permit, to be held around the call.

        Raises ``AdmissionQueueFullError``, or ``DrainingError`` once the door is closed.
        """
        if self._is_closed:
            raise DrainingError("this gateway is shutting down", retry_after_s=_DRAINING_RETRY_S)
        if (retry_after_s := self._calls.try_take()) is not None:
            raise AdmissionQueueFullError(
                f"{self._calls.total} calls are in flight",
                metadata={"limit": str(self._calls.total)},
                retry_after_s=retry_after_s,
            )
        if self._calls.in_use == 1:  # the first
            self._idle.clear()
        return Permit(self)

    def give_back(self) -> None:
        """A permit is free again."""
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


class Permit:
    """A call's, given back when the call ends. No generator: of these there is one for each stream."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def __enter__(self) -> None:
        """It is held already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.give_back()
