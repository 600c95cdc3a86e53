"""How messages get from a worker to a client, once for each data plane."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from gateway.passage import Passage, messages_of
from gateway.workers.errors import WorkerCallError
from gateway.workers.seat import Lease
from gateway.workers.upstreams import Upstreams
from tidegate.http2.grpc_status import CallError
from tidegate.http2.messages import framed
from tidegate.http2.relay import Relay
from tidegate.http2.server_call import ServerCall
from tidegate.rpc.http2_status import from_status


class GrpcCarrier:
    """Message by message, from grpc.aio to grpc.aio."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    async def carry(
        self, lease: Lease, job: bytes, passage: Passage, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """As ``Carrier.carry``."""
        async with lease.client.generate(job, timeout_s=timeout_s, metadata=metadata) as messages:
            async for message in messages:
                for passed in messages_of(passage.pass_on(framed(message))):
                    await self._context.write(passed)


class Http2Carrier:
    """Read by read, from one HTTP/2 connection to another. What the client does not take, the worker may not send."""

    def __init__(self, call: ServerCall, upstreams: Upstreams) -> None:
        self._call = call
        self._upstreams = upstreams

    async def carry(
        self, lease: Lease, job: bytes, passage: Passage, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """As ``Carrier.carry``."""
        relay = Relay(self._call, on_messages=passage.pass_on, max_message_bytes=self._upstreams.max_message_bytes)
        try:
            await self._upstreams.open(lease.worker_id, job, relay, timeout_s=timeout_s, metadata=metadata)
        except CallError as error:
            raise WorkerCallError(from_status(error.status)) from error
        expiry = asyncio.get_running_loop().call_later(timeout_s, relay.expire)
        try:
            status = await relay.ended()
        finally:
            expiry.cancel()
            relay.cancel()
        if not status.is_ok:
            raise WorkerCallError(from_status(status))
