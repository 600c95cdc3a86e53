"""The connections to all workers that there are, one task for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.workers.connection import WorkerConnection
from gateway.workers.fleet import Fleet
from gateway.workers.renderers import Renderers

_LOGGER = logging.getLogger(__name__)


class WorkerConnections:
    """Follows a ``Discovery``. The tasks belong to the group that it is given."""

    def __init__(
        self,
        fleet: Fleet,
        renderers: Renderers,
        tasks: asyncio.TaskGroup,
        *,
        connect: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        """``connect``: see ``WorkerConnection``."""
        self._connect = connect
        self._fleet = fleet
        self._renderers = renderers
        self._tasks = tasks
        self._running: dict[str, tuple[WorkerConnection, asyncio.Task[None]]] = {}

    def appear(self, address: str) -> None:
        """Connect to a worker, and stay connected."""
        connection = WorkerConnection(address, self._fleet, self._renderers, connect=self._connect)
        task = self._tasks.create_task(connection.run(), name=f"worker {address}")
        self._running[address] = (connection, task)
        self._fleet.named.add(address)
        _LOGGER.info("worker %s is to be connected to", address)

    def disappear(self, address: str) -> None:
        """Give a worker no more jobs, and leave it once those that run there have ended."""
        connection, _ = self._running.pop(address)
        connection.retire()
        self._fleet.named.discard(address)
        _LOGGER.info("worker %s is named no more; its streams may end", address)

    def cancel(self) -> None:
        """End all connections now."""
        for _, task in self._running.values():
            task.cancel()
