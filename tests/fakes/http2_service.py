"""One small service in two forms, for the HTTP/2 edge and for grpc.aio, so that both can be held to the same cases.

Messages are plain bytes. A call says in its metadata what it wants: ``x-count`` and ``x-size`` of the answers and the
``x-pause`` between them, ``x-code`` and ``x-message-bin`` of the status, ``x-echo`` and ``x-echo-bin`` to be returned
before and after the messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from tests.fakes.patience import PATIENCE_S
from tidegate.http2.grpc_status import Status
from tidegate.http2.metadata import Metadata
from tidegate.http2.server import Handler
from tidegate.http2.server_call import ServerCall

SERVICE = "/tidegate.test.Conformance/"
_CODES = {code.name: code for code in grpc.StatusCode}


@dataclass
class Observations:
    """What the service has seen."""

    cancelled: int = 0
    started: int = 0
    sent_messages: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note_started(self) -> None:
        self.started += 1
        self.changed.set()

    def note_sent(self) -> None:
        self.sent_messages += 1
        self.changed.set()

    def note_cancelled(self) -> None:
        self.cancelled += 1
        self.changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until ``is_so``; it is asked after every change."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()


def _wanted(metadata: Metadata) -> dict[str, Any]:
    return dict(metadata)


def _echoed(wanted: Mapping[str, Any]) -> Metadata:
    return tuple((key, wanted[key]) for key in ("x-echo", "x-echo-bin") if key in wanted)


def _status(wanted: Mapping[str, Any]) -> Status:
    details = tuple((k, v) for k, v in wanted.items() if k == "grpc-status-details-bin")
    return Status(
        code=_CODES[wanted.get("x-code", "OK")],
        message=bytes(wanted.get("x-message-bin", b"")).decode(),
        metadata=_echoed(wanted) + details,
    )


class EdgeService:
    """The service for ``tidegate.http2.server``."""

    def __init__(self, seen: Observations) -> None:
        self._seen = seen

    def handlers(self) -> dict[str, Handler]:
        named = {
            "Unary": self._unary,
            "ServerStream": self._server_stream,
            "ClientStream": self._client_stream,
            "Bidi": self._bidi,
            "Hang": self._hang,
        }
        return {SERVICE + name: self._observed(handler) for name, handler in named.items()}

    def _observed(self, inner: Handler) -> Handler:
        async def handler(call: ServerCall) -> Status:
            self._seen.note_started()
            try:
                return await inner(call)
            except asyncio.CancelledError:
                self._seen.note_cancelled()
                raise

        return handler

    async def _unary(self, call: ServerCall) -> Status:
        request = await call.receive_only()
        wanted = _wanted(call.metadata)
        status = _status(wanted)
        if status.is_ok:
            call.send_initial_metadata(_echoed(wanted))
            call.send(bytes(int(wanted["x-size"])) if "x-size" in wanted else request)
        return status

    async def _server_stream(self, call: ServerCall) -> Status:
        await call.receive_only()
        wanted = _wanted(call.metadata)
        call.send_initial_metadata(_echoed(wanted))
        for number in range(int(wanted.get("x-count", 1))):
            call.send(b"%d" % number + bytes(int(wanted.get("x-size", 0))))
            self._seen.note_sent()
            await call.drained()
            await asyncio.sleep(float(wanted.get("x-pause", 0)))
        return _status(wanted)

    async def _client_stream(self, call: ServerCall) -> Status:
        sizes = []
        while (message := await call.receive()) is not None:
            sizes.append(len(message))
        call.send(b"%d of %d" % (len(sizes), sum(sizes)))
        return Status(code=grpc.StatusCode.OK)

    async def _bidi(self, call: ServerCall) -> Status:
        while (message := await call.receive()) is not None:
            call.send(message)
            await call.drained()
        return _status(_wanted(call.metadata))

    async def _hang(self, call: ServerCall) -> Status:
        await call.receive_only()
        await asyncio.Event().wait()
        raise AssertionError


class AioService(grpc.GenericRpcHandler):
    """The service for grpc.aio."""

    def __init__(self, seen: Observations) -> None:
        self._seen = seen
        self._methods: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            SERVICE + "Unary": (grpc.unary_unary_rpc_method_handler, self._unary),
            SERVICE + "ServerStream": (grpc.unary_stream_rpc_method_handler, self._server_stream),
            SERVICE + "ClientStream": (grpc.stream_unary_rpc_method_handler, self._client_stream),
            SERVICE + "Bidi": (grpc.stream_stream_rpc_method_handler, self._bidi),
            SERVICE + "Hang": (grpc.unary_unary_rpc_method_handler, self._hang),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found = self._methods.get(handler_call_details.method)
        return found[0](found[1]) if found is not None else None

    async def _start(self, context: Any) -> dict[str, Any]:
        self._seen.note_started()
        return dict(context.invocation_metadata())

    async def _finish(self, context: Any, wanted: dict[str, Any]) -> None:
        status = _status(wanted)
        context.set_trailing_metadata(status.metadata)
        if not status.is_ok:
            await context.abort(status.code, status.message, status.metadata)

    async def _unary(self, request: bytes, context: Any) -> bytes:
        wanted = await self._start(context)
        await self._finish(context, wanted)
        await context.send_initial_metadata(_echoed(wanted))
        return bytes(int(wanted["x-size"])) if "x-size" in wanted else request

    async def _server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        wanted = await self._start(context)
        try:
            await context.send_initial_metadata(_echoed(wanted))
            for number in range(int(wanted.get("x-count", 1))):
                yield b"%d" % number + bytes(int(wanted.get("x-size", 0)))
                self._seen.note_sent()
                await asyncio.sleep(float(wanted.get("x-pause", 0)))
        except (asyncio.CancelledError, GeneratorExit):
            self._seen.note_cancelled()
            raise
        await self._finish(context, wanted)

    async def _client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        sizes = [len(message) async for message in requests]
        return b"%d of %d" % (len(sizes), sum(sizes))

    async def _bidi(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        wanted = await self._start(context)
        async for message in requests:
            yield message
        await self._finish(context, wanted)

    async def _hang(self, request: bytes, context: Any) -> bytes:
        await self._start(context)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._seen.note_cancelled()
            raise
        raise AssertionError
