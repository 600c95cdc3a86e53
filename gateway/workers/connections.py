"""The connections to all workers that there are, one task for each."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from gateway.workers.connection import WorkerConnection
from gateway.workers.fleet import Fleet
from gateway.workers.renderers import Renderers
from tidegate.rpc.server import Keepalive

_LOGGER = logging.getLogger(__name__)


class Way(Protocol):
    """How jobs go to workers, if in another way than all else."""

    async def connect(self, target: str) -> None:
        """Have a new connection. Raises ``WorkerCallError``."""

    def leave(self, target: str) -> None:
        """The worker is gone for good."""


class WorkerConnections:
    """Follows a ``Discovery``. The tasks belong to the group that it is given."""

    def __init__(
        self,
        fleet: Fleet,
        renderers: Renderers,
        tasks: asyncio.TaskGroup,
        *,
        way: Way | None,
        keepalive: Keepalive,
    ) -> None:
        """``way`` None: jobs go where all else goes. ``keepalive`` is that of the connections made here."""
        self._way = way
        self._keepalive = keepalive
        self._fleet = fleet
        self._renderers = renderers
        self._tasks = tasks
        self._running: dict[str, tuple[WorkerConnection, asyncio.Task[None]]] = {}

    def appear(self, address: str) -> None:
        """Connect to a worker, and stay connected."""
        connect = None if self._way is None else self._way.connect
        connection = WorkerConnection(address, self._fleet, self._renderers, connect=connect, keepalive=self._keepalive)
        task = self._tasks.create_task(self._run(address, connection), name=f"worker {address}")
        self._running[address] = (connection, task)
        self._fleet.named.add(address)
        _LOGGER.info("worker %s is to be connected to", address)

    def disappear(self, address: str) -> None:
        """Give a worker no more jobs, and leave it once those that run there have ended."""
        connection, _ = self._running.pop(address)
        connection.retire()
        self._fleet.named.discard(address)
        _LOGGER.info("worker %s is named no more; its streams may end", address)

    async def _run(self, address: str, connection: WorkerConnection) -> None:
        await connection.run()
        if address not in self._running:  # it may have been named again meanwhile
            self._fleet.forget(address)
            if self._way is not None:
                self._way.leave(address)

    def cancel(self) -> None:
        """End all connections now."""
        for _, task in self._running.values():
            task.cancel()
