"""The HTTP/2 connections over which jobs go to workers. What else a worker is asked goes over ``WorkerClient``."""

from __future__ import annotations

import asyncio
import time

from grpc import StatusCode

from gateway.workers.client import GENERATE
from gateway.workers.errors import WorkerCallError
from tidegate.http2.alarms import Alarms
from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.grpc_status import CallError, Status
from tidegate.http2.limits import Limits
from tidegate.http2.messages import framed
from tidegate.http2.metadata import Metadata
from tidegate.http2.streams import Stream, StreamHandler
from tidegate.http2.transport import Flusher
from tidegate.rpc.http2_status import from_status

# In a burst, a worker begins with the first jobs while others are still prepared; but each write costs as much as a
# twentieth of a request.
_JOBS_PER_WRITE = 4
# A worker in the fleet has shown that it can be reached; what takes long then is a burst of requests on this side.
_CONNECT_TIMEOUT_S = 10.0


class Upstreams:
    """One channel for each worker that was given a job, until it is left. Make it inside a running event loop."""

    def __init__(self, flusher: Flusher, limits: Limits) -> None:
        """``flusher`` is that of the connections to clients, so that what is read from a worker leaves at once."""
        self.max_message_bytes = limits.max_message_bytes
        self.alarms = Alarms()
        self._flusher = flusher
        self._endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic, limits=limits)
        self._channels: dict[str, Channel] = {}
        self._unsent_jobs = 0

    async def open(
        self, target: str, job: bytes, handler: StreamHandler, *, timeout_s: float, metadata: Metadata
    ) -> Stream:
        """Start ``job`` at the worker, over a new connection where none stands. Raises ``CallError``."""
        channel = self._channel(target)
        if not channel.can_open:
            await _connect(channel)
        return self._start(channel, job, handler, timeout_s=timeout_s, metadata=metadata)

    def open_now(
        self, target: str, job: bytes, handler: StreamHandler, *, timeout_s: float, metadata: Metadata
    ) -> Stream | None:
        """Start ``job`` at the worker over a connection that stands; None where there is none. Raises ``CallError``."""
        channel = self._channel(target)
        if not channel.can_open:
            return None
        return self._start(channel, job, handler, timeout_s=timeout_s, metadata=metadata)

    async def connect(self, target: str) -> None:
        """Have a new connection to the worker, whose old one may be dead without a sign: jobs that run there stay.

        Raises ``WorkerCallError``.
        """
        channel = self._channel(target)
        channel.drain()
        try:
            await _connect(channel)
        except CallError as error:
            raise WorkerCallError(from_status(error.status)) from error

    def leave(self, target: str) -> None:
        """No job goes there any more, and none runs there."""
        channel = self._channels.pop(target, None)
        if channel is not None:
            channel.close()

    def _channel(self, target: str) -> Channel:
        channel = self._channels.get(target)
        if channel is None:
            host, _, port = target.rpartition(":")
            address = Target(host=host.strip("[]"), port=int(port))
            channel = self._channels[target] = Channel(self._endpoint, address, flusher=self._flusher)
        return channel

    def _start(
        self, channel: Channel, job: bytes, handler: StreamHandler, *, timeout_s: float, metadata: Metadata
    ) -> Stream:
        stream = channel.open(channel.head(GENERATE, metadata=metadata, timeout_s=timeout_s), handler)
        stream.send_data(framed(job), end_stream=True)
        self._unsent_jobs += 1
        if self._unsent_jobs >= _JOBS_PER_WRITE:  # the flusher writes what is fewer at the end of this turn
            self._unsent_jobs = 0
            self._flusher.flush()
        return stream

    def close(self) -> None:
        """Close all connections; jobs that run there end."""
        for channel in self._channels.values():
            channel.close()


async def _connect(channel: Channel) -> None:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await channel.connect()
    except OSError as error:  # TimeoutError is one
        message = f"cannot connect to {channel.target.authority}: {error}"
        raise CallError(Status(code=StatusCode.UNAVAILABLE, message=message)) from error
