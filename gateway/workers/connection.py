"""The life of one worker as seen from here: connect, prove, follow its load, lose it, and come back to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from gateway.workers.client import WorkerClient
from gateway.workers.errors import SilentWorkerError
from gateway.workers.fleet import Fleet
from gateway.workers.handshake import shake_hands
from gateway.workers.load_watch import watch_load
from gateway.workers.reconnection import reconnect_forever
from gateway.workers.renderers import Renderers
from gateway.workers.seat import Seat
from tidegate.rpc.server import DEFAULT_KEEPALIVE, Keepalive

# How often a worker that is to be left is looked at for streams that still run.
_IDLE_CHECK_S = 0.1


class WorkerConnection:
    """Keeps one address in the fleet for as long as a usable worker answers there."""

    def __init__(
        self,
        target: str,
        fleet: Fleet,
        renderers: Renderers,
        *,
        connect: Callable[[str], Awaitable[None]] | None = None,
        keepalive: Keepalive = DEFAULT_KEEPALIVE,
    ) -> None:
        """``connect`` makes the way ready by which jobs go to a target, if it is another than ``WorkerClient``'s.

        It raises ``WorkerCallError``.
        """
        self._connect = connect
        self._keepalive = keepalive
        self._target = target
        self._fleet = fleet
        self._renderers = renderers
        self._retired = asyncio.Event()
        self._seat: Seat | None = None
        self._is_silent = False  # it was when it was lost
        self._spent: list[tuple[WorkerClient, Seat | None]] = []  # those before the one in use, and their jobs

    async def run(self) -> None:
        """Until cancelled, or retired. Streams on the worker outlive a lost load watch, but not this."""
        client = WorkerClient(self._target, keepalive=self._keepalive)

        async def session(begin_use: Callable[[], None]) -> None:
            nonlocal client
            if self._is_silent:  # the connection may be dead, and would be found so only by its keepalive
                self._is_silent = False
                self._spent.append((client, self._seat))
                client = WorkerClient(self._target, keepalive=self._keepalive)
            await self._close_spent()
            await self._session(client, begin_use)

        serving = asyncio.ensure_future(reconnect_forever(session, target=self._target))
        retired = asyncio.ensure_future(self._retired.wait())
        try:
            await asyncio.wait((serving, retired), return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            await asyncio.wait((serving,))
            while self._has_jobs:  # noqa: ASYNC110 - rare, and nobody waits for it
                await asyncio.sleep(_IDLE_CHECK_S)
        finally:
            serving.cancel()
            retired.cancel()
            await asyncio.wait((serving, retired))
            for spent, _ in (*self._spent, (client, None)):
                await spent.close()

    def retire(self) -> None:
        """Take the worker out of rotation for good, and end once its streams have ended."""
        self._retired.set()

    @property
    def _has_jobs(self) -> bool:
        seats = (self._seat, *(seat for _, seat in self._spent))
        return any(seat is not None and seat.in_flight for seat in seats)

    async def _session(self, client: WorkerClient, begin_use: Callable[[], None]) -> None:
        """Connecting, proving, then serving; in rotation from the first load report on. Ends by raising."""
        model = await shake_hands(client, self._renderers)
        if self._connect is not None:  # before a burst of requests waits for it
            await self._connect(self._target)
        async with aclosing(watch_load(client)) as loads:
            seat = self._seat = self._fleet.join(client, model, await anext(loads))
            begin_use()
            try:
                async for load in loads:
                    self._fleet.report(seat, load)
                    await self._close_spent()
            except SilentWorkerError:
                self._is_silent = True
                raise
            finally:
                self._fleet.leave(seat, is_silent=self._is_silent)

    async def _close_spent(self) -> None:
        """Close the clients whose last jobs have ended; mostly there are none."""
        idle = [(client, seat) for client, seat in self._spent if seat is None or not seat.in_flight]
        for pair in idle:
            self._spent.remove(pair)
            await pair[0].close()
