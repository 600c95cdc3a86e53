"""Clients of different make with one way to call, for cases that every one of them has to pass."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import grpc.aio

from tests.fakes.patience import PATIENCE_S
from tidegate.http2.channel import Channel
from tidegate.http2.grpc_status import CallError
from tidegate.http2.metadata import Metadata
from tidegate.rpc.server import CHANNEL_OPTIONS


@dataclass
class Outcome:
    """How a call went."""

    code: grpc.StatusCode
    message: str = ""
    received: list[bytes] = field(default_factory=list)
    initial: dict[str, Any] = field(default_factory=dict)
    trailing: dict[str, Any] = field(default_factory=dict)


class Caller(Protocol):
    """Makes calls of any kind."""

    async def call(
        self,
        method: str,
        requests: Sequence[bytes] = (b"",),
        *,
        metadata: Metadata = (),
        timeout_s: float | None = PATIENCE_S,
        cancel_after: int | None = None,
        cancel_when: Awaitable[None] | None = None,
        pause_s: float = 0,
    ) -> Outcome:
        """Send ``requests`` and half-close; cancel after so many answers, or when told to; pause after each answer."""

    async def close(self) -> None:
        """End."""


class AioCaller:
    """grpc.aio."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = CHANNEL_OPTIONS
        self._channel = (
            grpc.aio.insecure_channel(address, options=options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=options)
        )

    async def call(
        self,
        method: str,
        requests: Sequence[bytes] = (b"",),
        *,
        metadata: Metadata = (),
        timeout_s: float | None = PATIENCE_S,
        cancel_after: int | None = None,
        cancel_when: Awaitable[None] | None = None,
        pause_s: float = 0,
    ) -> Outcome:
        # A refusal that comes while a streaming request is still being written loses its status in grpc.aio (grpc issue
        # 36066), so that calls with one request are made as what they are.
        make: Any = self._channel.unary_stream if len(requests) == 1 else self._channel.stream_stream
        request = requests[0] if len(requests) == 1 else iter(requests)
        call = make(method)(request, timeout=timeout_s, metadata=metadata)
        received: list[bytes] = []
        try:
            if cancel_when is not None:
                await cancel_when
                call.cancel()
            async for message in call:
                received.append(message)
                if len(received) == cancel_after:
                    call.cancel()
                await asyncio.sleep(pause_s)
        except grpc.RpcError:
            pass
        except asyncio.CancelledError:
            if cancel_after is None and cancel_when is None:
                raise
        finally:
            call.cancel()
        return Outcome(
            code=await call.code(),
            message=await call.details(),
            received=received,
            initial=dict(await call.initial_metadata() or ()),
            trailing=dict(await call.trailing_metadata() or ()),
        )

    async def close(self) -> None:
        await self._channel.close()


class SyncCaller:
    """grpcio's blocking stack, in a thread of its own for each call."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = CHANNEL_OPTIONS
        self._channel = (
            grpc.insecure_channel(address, options=options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=options)
        )

    async def call(
        self,
        method: str,
        requests: Sequence[bytes] = (b"",),
        *,
        metadata: Metadata = (),
        timeout_s: float | None = PATIENCE_S,
        cancel_after: int | None = None,
        cancel_when: Awaitable[None] | None = None,
        pause_s: float = 0,
    ) -> Outcome:
        make: Any = self._channel.unary_stream if len(requests) == 1 else self._channel.stream_stream
        request = requests[0] if len(requests) == 1 else iter(requests)
        call = make(method)(request, timeout=timeout_s, metadata=metadata)
        received: list[bytes] = []

        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                for message in call:
                    received.append(message)
                    if len(received) == cancel_after:
                        call.cancel()
                    time.sleep(pause_s)

        reading = asyncio.ensure_future(asyncio.to_thread(read))
        if cancel_when is not None:
            await cancel_when
            call.cancel()
        await reading
        return Outcome(
            code=call.code(),
            message=call.details(),
            received=received,
            initial=dict(call.initial_metadata() or ()),
            trailing=dict(call.trailing_metadata() or ()),
        )

    async def close(self) -> None:
        self._channel.close()


class EdgeCaller:
    """Our own channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def call(
        self,
        method: str,
        requests: Sequence[bytes] = (b"",),
        *,
        metadata: Metadata = (),
        timeout_s: float | None = PATIENCE_S,
        cancel_after: int | None = None,
        cancel_when: Awaitable[None] | None = None,
        pause_s: float = 0,
    ) -> Outcome:
        try:
            call = await self._channel.call(method, metadata=metadata, timeout_s=timeout_s)
        except CallError as error:
            return Outcome(code=error.status.code, message=error.status.message)
        received: list[bytes] = []
        try:
            for request in requests:
                call.send(request)
            call.half_close()
            if cancel_when is not None:
                await cancel_when
                call.cancel()
            while (message := await call.receive()) is not None:
                received.append(message)
                if len(received) == cancel_after:
                    call.cancel()
                await asyncio.sleep(pause_s)
        except CallError:
            pass
        finally:
            call.cancel()
        assert call.status is not None
        return Outcome(
            code=call.status.code,
            message=call.status.message,
            received=received,
            initial=dict(call.initial_metadata or ()),
            trailing=dict(call.status.metadata),
        )

    async def close(self) -> None:
        self._channel.close()
