"""How messages get from a worker to a client, once for each data plane."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

import grpc.aio

from gateway.errors import ClientTooSlowError
from gateway.hedging import ScoutListener
from gateway.passage import Passage, messages_of
from gateway.policy.slow_reader import SlowReader
from gateway.scout import Http2Scout
from gateway.workers.errors import WorkerCallError
from gateway.workers.seat import Lease
from gateway.workers.upstreams import Upstreams
from tidegate.http2.alarms import Alarm
from tidegate.http2.fields import Fields
from tidegate.http2.grpc_status import CallError
from tidegate.http2.messages import framed
from tidegate.http2.relay import Relay
from tidegate.http2.server_call import ServerCall
from tidegate.http2.streams import Stream
from tidegate.rpc.http2_status import from_status
from tidegate.rpc.metadata import LOAD_SAMPLE

_LOAD_SAMPLE_FIELD = LOAD_SAMPLE.encode()


class GrpcCarrier:
    """Message by message, from grpc.aio to grpc.aio. It has one call to a worker at a time."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], *, max_stall_s: float) -> None:
        """A client that takes nothing for ``max_stall_s`` is given up."""
        self._context = context
        self._max_stall_s = max_stall_s

    def scout(self, *_: object, **__: object) -> None:
        """As ``Sender.scout``."""

    def drop(self) -> None:
        """As ``Sender.drop``."""

    async def carry(
        self, lease: Lease, job: bytes, passage: Passage, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """As ``Carrier.carry``."""

        def on_head(head: Iterable[tuple[str, str | bytes]]) -> None:
            lease.admit(_sample_number(dict(head).get(LOAD_SAMPLE)))

        calling = lease.client.generate(job, timeout_s=timeout_s, metadata=metadata, on_head=on_head)
        async with calling as messages:
            async for message in messages:
                with lease.call.sending():
                    for passed in messages_of(passage.pass_on(framed(message))):
                        await self._write(passed, passage)

    async def _write(self, message: bytes, passage: Passage) -> None:
        try:
            async with asyncio.timeout(self._max_stall_s):
                await self._context.write(message)
        except TimeoutError:
            raise too_slow(passage, held_bytes=len(message), stalled_s=self._max_stall_s) from None


class Http2Carrier:
    """Read by read, from one HTTP/2 connection to another. What the client does not take, the worker may not send."""

    __slots__ = ("_call", "_look", "_reader", "_relay", "_scout", "_upstreams")

    def __init__(self, call: ServerCall, upstreams: Upstreams, *, max_stall_s: float) -> None:
        """A client that takes nothing for ``max_stall_s`` is given up."""
        self._call = call
        self._upstreams = upstreams
        self._reader = SlowReader(max_stall_s)
        self._look: Alarm | None = None
        self._relay: Relay | None = None
        self._scout: Http2Scout | None = None

    def scout(
        self,
        lease: Lease,
        job: bytes,
        listener: ScoutListener,
        *,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...],
    ) -> Http2Scout | None:
        """As ``Sender.scout``."""
        scout = Http2Scout(lease, listener, on_head=partial(_admit, lease))
        stream = self._upstreams.open_now(lease.worker_id, job, scout, timeout_s=timeout_s, metadata=metadata)
        if stream is None:
            return None
        scout.stream = stream
        self._scout = scout
        return scout

    def drop(self) -> None:
        """As ``Sender.drop``."""
        if self._relay is not None:
            self._relay.cancel()

    async def carry(
        self, lease: Lease, job: bytes, passage: Passage, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """As ``Carrier.carry``."""
        relay = Relay(
            self._call,
            on_messages=passage.pass_on,
            on_head=partial(_admit, lease),
            ends_well=passage.ends_well,
            max_message_bytes=self._upstreams.max_message_bytes,
        )
        scout, self._scout = self._scout, None
        if scout is not None and scout.lease is lease:
            scout.hand_over(relay)
        else:
            relay.stream = self._open_now(lease, job, relay, timeout_s=timeout_s, metadata=metadata) or (
                await self._open(lease, job, relay, timeout_s=timeout_s, metadata=metadata)
            )
        self._relay = relay
        job = b""  # which would last as long as the stream
        loop, held_bytes = self._call.loop, 0
        now = loop.time()
        self._look_later(relay, now + timeout_s, now=now)
        try:
            status = await relay.ended()
            held_bytes = self._call.stream.backlog_bytes
        finally:
            if self._look is not None:
                self._look.cancel()
            relay.cancel()
        if self._look is None:
            raise too_slow(passage, held_bytes=held_bytes, stalled_s=self._reader.stalled_s(loop.time()))
        if not status.is_ok:
            raise WorkerCallError(from_status(status))

    def _open_now(
        self, lease: Lease, job: bytes, relay: Relay, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> Stream | None:
        try:
            return self._upstreams.open_now(lease.worker_id, job, relay, timeout_s=timeout_s, metadata=metadata)
        except CallError as error:
            raise WorkerCallError(from_status(error.status)) from error

    async def _open(
        self, lease: Lease, job: bytes, relay: Relay, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> Stream:
        try:
            return await self._upstreams.open(lease.worker_id, job, relay, timeout_s=timeout_s, metadata=metadata)
        except CallError as error:
            raise WorkerCallError(from_status(error.status)) from error

    def _look_later(self, relay: Relay, expires_at: float, *, now: float) -> None:
        """One alarm for both: how the client reads, and the deadline."""
        at = min(expires_at, now + self._reader.look_again_s)
        self._look = self._upstreams.alarms.call_at(at, partial(self._look_at_reader, relay, expires_at))

    def _look_at_reader(self, relay: Relay, expires_at: float) -> None:
        held_bytes, now = self._call.stream.backlog_bytes, self._call.loop.time()
        if now >= expires_at:
            relay.expire()
        elif self._reader.look(held_bytes=held_bytes, taken_bytes=relay.taken_bytes, now=now):
            self._look = None
            relay.expire()
        else:
            self._look_later(relay, expires_at, now=now)


def too_slow(passage: Passage, *, held_bytes: int, stalled_s: float) -> ClientTooSlowError:
    """The client is given up; what it was sent, it can still read."""
    return ClientTooSlowError(
        f"the client has read nothing for {stalled_s:.1f} s, with {held_bytes} bytes held for it",
        metadata={
            "tokens_sent": str(passage.tokens),
            "held_bytes": str(held_bytes),
            "stalled_ms": str(round(stalled_s * 1000)),
        },
    )


def _admit(lease: Lease, fields: Fields) -> None:
    """The worker has sent its head."""
    sample: bytes | None = None
    for name, value in fields:
        if name == _LOAD_SAMPLE_FIELD:
            sample = value
    lease.admit(_sample_number(sample))


def _sample_number(value: str | bytes | None) -> int | None:
    """What the worker says of its load reports; None where it says nothing."""
    return int(value) if value is not None and value.isdigit() else None
