"""Passes on what this gateway suspects of having killed a worker, to all gateways by way of the workers that are left.

Gateways do not know one another. A worker keeps what it is told for as long as it matters, and its load reports go to
every gateway: those that serve now, and those that start later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NoReturn

from gateway.workers.errors import WorkerCallError
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Seat

_LOGGER = logging.getLogger(__name__)


class SuspectSharing:
    """Tells each worker once of each suspicion."""

    def __init__(self, fleet: Fleet, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` is the fleet's."""
        self._fleet = fleet
        self._clock = clock

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            await self._fleet.suspicion.wait()
            self._fleet.suspicion.clear()
            async with asyncio.TaskGroup() as tasks:
                for seat in self._fleet.seats:
                    tasks.create_task(self._share_with(seat))

    async def _share_with(self, seat: Seat) -> None:
        known = {(suspect.digest, suspect.instance_id) for suspect in seat.load.suspects}
        missing = [
            suspect
            for suspect in self._fleet.quarantine.suspects(self._clock())
            if (suspect.digest, suspect.instance_id) not in known and suspect.instance_id != seat.load.instance_id
        ]
        if not missing:
            return
        try:
            await seat.client.share_suspects(missing)
        except WorkerCallError as error:
            # It may be the next one to die. What it was not told, the others are.
            _LOGGER.debug("worker %s was not told of suspicious requests: %s", seat.worker_id, error)
