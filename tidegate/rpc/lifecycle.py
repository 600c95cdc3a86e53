"""The life of a server process: start, serve, and on SIGTERM or SIGINT drain before it stops.

The order of a drain matters to clients: first health says NOT_SERVING, so that balancers look elsewhere; then, where
clients need not follow health, GOAWAY sends them elsewhere, and the door is closed; calls that still come are refused
with a reason while running ones finish, for ``grace_s`` at most; then the end.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

_LOGGER = logging.getLogger(__name__)

# For watchers, of health or load, which would never end by themselves.
_FAREWELL_S = 0.5


class Stoppable(Protocol):
    """What clients are connected to."""

    def send_away(self) -> None:
        """Take no more connections, and have clients leave those that stand; running calls go on."""

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, let running ones finish for ``grace_s`` seconds, then end them."""


class Lifecycle:
    """Owns a server's readiness and its end.

    ``services`` are the names under which grpc.health.v1 answers; "" always stands for the process. All say NOT_SERVING
    until ``set_ready(True)``.
    """

    def __init__(
        self,
        *,
        services: Iterable[str],
        grace_s: float,
        until_idle: Callable[[], Awaitable[None]] | None = None,
        sends_away: bool = False,
    ) -> None:
        """``grace_s`` is how long running calls may take once a drain has begun.

        ``sends_away``: a drain begins with GOAWAY. It does not where all clients hear of the drain in another way.

        ``until_idle`` returns when no call runs that a drain has to wait for; without it every call is such a one.
        """
        self.health = health_aio.HealthServicer()
        self.is_draining = False
        self._services = ("", *services)
        self._grace_s = grace_s
        self._until_idle = until_idle
        self._sends_away = sends_away
        self._stop = asyncio.Event()
        self._on_drain: list[Callable[[], None]] = []
        self._on_grace_end: list[Callable[[], None]] = []

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when a drain begins."""
        self._on_drain.append(callback)

    def on_grace_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when calls still run at the end of the grace: it ends them, with a reason."""
        self._on_grace_end.append(callback)

    async def set_ready(self, ready: bool) -> None:  # noqa: FBT001 - reads as a sentence
        """Answer health checks with SERVING or NOT_SERVING; a draining server stays NOT_SERVING."""
        serving = ready and not self.is_draining
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.health.set(service, status)

    def request_stop(self, grace_s: float | None = None) -> None:
        """Begin a drain; ``grace_s`` overrides the default. Later calls change nothing."""
        if not self.is_draining:
            self.is_draining = True
            self._grace_s = self._grace_s if grace_s is None else grace_s
            for callback in self._on_drain:
                callback()
            self._stop.set()

    async def serve(self, port: Stoppable) -> None:
        """Serve until a signal or ``request_stop``, then stop ``port``; a second signal ends at once."""
        loop = asyncio.get_running_loop()
        hurry = asyncio.Event()

        def on_signal(name: str) -> None:
            if self.is_draining:
                hurry.set()
            _LOGGER.info("%s: draining", name)
            self.request_stop()

        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, on_signal, signum.name)
        try:
            await self._stop.wait()
            await self.set_ready(False)
            if self._sends_away:
                port.send_away()
            stopping = asyncio.ensure_future(self._end_calls(port))
            hurried = asyncio.ensure_future(hurry.wait())
            await asyncio.wait((stopping, hurried), return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not stopping.done():
                stopping.cancel()
                await asyncio.wait((stopping,))
                await port.stop(0)
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)

    async def _end_calls(self, port: Stoppable) -> None:
        if self._until_idle is None:
            await port.stop(self._grace_s)
            return
        try:
            async with asyncio.timeout(self._grace_s):
                await self._until_idle()
        except TimeoutError:
            _LOGGER.warning("calls still run after %g s; ending them", self._grace_s)
            for callback in self._on_grace_end:
                callback()
        await port.stop(_FAREWELL_S)
