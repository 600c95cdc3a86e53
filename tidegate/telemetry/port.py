"""Opens a process's admin port as its settings ask for, or says why there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tidegate.telemetry.admin import AdminServer, Page
from tidegate.telemetry.metrics import Metrics

_LOGGER = logging.getLogger(__name__)


@asynccontextmanager
async def admin_port(
    listen: str, metrics: Metrics, pages: Mapping[str, Page], *, is_default: bool
) -> AsyncIterator[str]:
    """Serve on ``listen``, and give the address; where ``listen`` is empty there is none, which is an empty one too.

    A default address that is taken, by a second worker on the machine perhaps, is no reason not to serve: it is logged.
    One that was asked for raises ``OSError``.
    """
    server = None
    if listen:
        try:
            server = AdminServer(listen, metrics.registry, pages)
        except OSError as error:
            if not is_default:
                raise
            _LOGGER.warning("no metrics and no status page: %s is taken (%s); say --admin-listen", listen, error)
        else:
            _LOGGER.info("metrics on http://%s/metrics", server.address)
    try:
        yield server.address if server else ""
    finally:
        if server is not None:
            await asyncio.to_thread(server.close)
