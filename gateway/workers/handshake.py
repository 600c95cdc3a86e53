"""Proves that this gateway can serve a worker's model: same files, same rendering, same tokens."""

from __future__ import annotations

import asyncio

from gateway.canary import diverging_canary
from gateway.model import ServedModel
from gateway.workers.client import WorkerClient
from gateway.workers.errors import UnusableWorkerError
from gateway.workers.renderers import Renderers


async def shake_hands(client: WorkerClient, renderers: Renderers) -> ServedModel:
    """The worker's model. Raises ``UnusableWorkerError`` for one that must get no traffic, or ``WorkerCallError``."""
    response = await client.get_model()
    renderer = await renderers.renderer_for(client, response.model.digests)
    divergence = await asyncio.to_thread(diverging_canary, renderer, response.canaries)
    if divergence is not None:
        raise UnusableWorkerError(f"it renders differently: {divergence}")
    try:
        return ServedModel.from_handshake(response, renderer)
    except ValueError as error:
        raise UnusableWorkerError(f"its model cannot be served: {error}") from error
