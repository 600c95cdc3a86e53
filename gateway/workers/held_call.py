"""One call to a worker as something that can be given up: for another worker's sake, while this one says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from grpc import StatusCode

from gateway.workers.errors import WorkerCallError
from tidegate.rpc.status import RpcError

_LOST = RpcError(code=StatusCode.UNAVAILABLE, reason="", domain="", message="the worker makes no sign of life")


class HeldCall:
    """Give it up at any time: a message that came from the worker is sent to the client whole, or not at all."""

    __slots__ = ("_is_given_up", "_is_sending", "_timeout")

    def __init__(self) -> None:
        self._timeout: asyncio.Timeout | None = None
        self._is_given_up = False
        self._is_sending = False

    @property
    def is_given_up(self) -> bool:
        """Whether it was: whatever the worker does, nobody has seen it die."""
        return self._is_given_up

    async def begin(self) -> None:
        """Before the call, which is made in this task. Raises ``WorkerCallError`` where it is given up already."""
        self._check()
        self._timeout = await asyncio.timeout(None).__aenter__()

    async def end(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After the call, which ended so. Raises ``WorkerCallError`` when that was because it was given up."""
        timeout, self._timeout = self._timeout, None
        try:
            if timeout is not None:
                await timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise WorkerCallError(_LOST) from None
        if isinstance(error, TimeoutError):
            raise WorkerCallError(_LOST) from None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around the sending of a message, where that may have to wait. Raises ``WorkerCallError`` as ``end`` does."""
        self._check()
        self._is_sending = True
        try:
            yield
        finally:
            self._is_sending = False
        self._check()

    def give_up(self) -> None:
        """End the call: at once, or behind the message that is being sent."""
        self._is_given_up = True
        if self._timeout is not None and not self._is_sending:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _check(self) -> None:
        if self._is_given_up:
            raise WorkerCallError(_LOST)
