"""The life of one worker as seen from here: connect, prove, follow its load, lose it, and come back to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NoReturn

from gateway.workers.client import WorkerClient
from gateway.workers.fleet import Fleet
from gateway.workers.handshake import shake_hands
from gateway.workers.load_watch import watch_load
from gateway.workers.reconnection import reconnect_forever
from gateway.workers.renderers import Renderers


class WorkerConnection:
    """Keeps one address in the fleet for as long as a usable worker answers there."""

    def __init__(
        self,
        target: str,
        fleet: Fleet,
        renderers: Renderers,
        *,
        connect: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """``connect`` makes the way ready by which jobs go to a target, if it is another than ``WorkerClient``'s.

        It raises ``WorkerCallError``.
        """
        self._connect = connect
        self._target = target
        self._fleet = fleet
        self._renderers = renderers

    async def run(self) -> NoReturn:
        """Until cancelled. Streams on the worker outlive a lost load watch, but not this."""
        client = WorkerClient(self._target)

        async def session(begin_use: Callable[[], None]) -> None:
            await self._session(client, begin_use)

        try:
            await reconnect_forever(session, target=self._target)
        finally:
            await client.close()

    async def _session(self, client: WorkerClient, begin_use: Callable[[], None]) -> None:
        """Connecting, proving, then serving; in rotation from the first load report on. Ends by raising."""
        model = await shake_hands(client, self._renderers)
        if self._connect is not None:  # before a burst of requests waits for it
            await self._connect(self._target)
        async with aclosing(watch_load(client)) as loads:
            seat = self._fleet.join(client, model, await anext(loads))
            begin_use()
            try:
                async for load in loads:
                    self._fleet.report(seat, load)
            finally:
                self._fleet.leave(seat)
