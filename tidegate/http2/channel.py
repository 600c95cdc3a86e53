"""A gRPC client's connections to one server: connects when needed, leaves a connection that its server leaves."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from grpc import StatusCode

from tidegate.http2.client_call import ClientCall
from tidegate.http2.endpoint import Endpoint
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.fields import EncodedFields, Fields, encode, list_bytes
from tidegate.http2.grpc_status import CallError, Status
from tidegate.http2.metadata import TIMEOUT, Metadata, encode_metadata, format_timeout
from tidegate.http2.request_head import method_fields
from tidegate.http2.streams import Stream, StreamHandler
from tidegate.http2.transport import Flusher, Transport

_TICK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a server listens: TCP, or a Unix socket when ``unix_path`` is set."""

    host: str = ""
    port: int = 0
    unix_path: str | None = None

    @property
    def authority(self) -> str:
        """For the :authority field."""
        return "localhost" if self.unix_path is not None else f"{self.host}:{self.port}"


class Channel:
    """Opens calls to one target. A second connection is opened only when the first takes no more streams."""

    def __init__(
        self,
        endpoint: Endpoint,
        target: Target,
        *,
        flusher: Flusher,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connects on the first call, or on ``connect``."""
        self.target = target
        self._endpoint = endpoint
        self._flusher = flusher
        self._tls = tls
        self._heads: dict[str, EncodedFields] = {}  # by method: what all of its calls begin with
        self._metadata: Metadata = ()  # that of the latest call, which the next one may have as well
        self._encoded_metadata = EncodedFields(b"", 0)
        self._transports: list[Transport] = []
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def can_open(self) -> bool:
        """Whether a stream can be opened without waiting for a connection."""
        return self._usable() is not None

    async def connect(self) -> None:
        """Have a connection that takes streams. Raises ``OSError``."""
        async with self._connecting:
            if not self.can_open:
                await self._connect()

    async def call(self, method: str, *, metadata: Metadata = (), timeout_s: float | None = None) -> ClientCall:
        """Start a call; then ``send``, ``half_close`` and ``receive``. Raises ``CallError`` when there is no server."""
        if not self.can_open:
            try:
                await self.connect()
            except OSError as error:
                raise CallError(Status(code=StatusCode.UNAVAILABLE, message=f"cannot connect: {error}")) from error
        call = ClientCall(max_message_bytes=self._endpoint.limits.max_message_bytes)
        stream = self.open(self.head(method, metadata=metadata, timeout_s=timeout_s), call)
        call.start(stream, timeout_s=timeout_s)
        return call

    def head(self, method: str, *, metadata: Metadata = (), timeout_s: float | None = None) -> EncodedFields:
        """The head of a request to this target."""
        head = self._heads.get(method)
        if head is None:
            fields = method_fields(method, authority=self.target.authority, is_tls=self._tls is not None)
            head = self._heads[method] = EncodedFields.of(fields)
        if metadata is not self._metadata:
            self._encoded_metadata = EncodedFields.of(encode_metadata(metadata))
            self._metadata = metadata
        of_call = self._encoded_metadata
        if timeout_s is None:
            return EncodedFields(head.block + of_call.block, head.list_bytes + of_call.list_bytes)
        # Last what always is new: a reader can have what is before it from its memory.
        timeout = ((TIMEOUT, format_timeout(timeout_s)),)
        return EncodedFields(
            head.block + of_call.block + encode(timeout), head.list_bytes + of_call.list_bytes + list_bytes(timeout)
        )

    def open(self, head: EncodedFields, handler: StreamHandler, *, end_stream: bool = False) -> Stream:
        """Open a stream on a standing connection; ask ``can_open`` first. Raises ``CallError``."""
        transport = self._usable()
        if transport is None:
            raise CallError(Status(code=StatusCode.UNAVAILABLE, message=f"not connected to {self.target.authority}"))
        limit = transport.connection.session.peer.max_header_list_bytes
        if limit is not None and head.list_bytes > limit:
            message = f"metadata is larger than the {limit} bytes that the server takes"
            raise CallError(Status(code=StatusCode.RESOURCE_EXHAUSTED, message=message))
        return transport.connection.open_stream(head.block, handler, end_stream=end_stream)

    def drain(self) -> None:
        """Take no more calls; close when those that run have finished."""
        for transport in self._transports:
            transport.connection.session.drain()
            transport.flush()

    def close(self) -> None:
        """Close at once; calls that run end."""
        for transport in list(self._transports):
            transport.connection.session.close(ErrorCode.NO_ERROR)
            transport.flush()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    # Owner.

    def on_made(self, transport: Transport) -> None:
        """The connection stands."""
        self._transports.append(transport)
        if self._ticker is None:
            self._tick()

    def on_lost(self, transport: Transport) -> None:
        """The connection is gone."""
        self._transports.remove(transport)

    def on_request(self, transport: Transport, stream: Stream, fields: Fields, *, end_stream: bool) -> StreamHandler:
        """Servers open no streams."""
        raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "a server opened a stream")

    def _usable(self) -> Transport | None:
        for transport in self._transports:
            # How many streams a server takes is not known before its first words.
            if transport.greeted.done() and transport.connection.session.can_open:
                return transport
        return None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        target = self.target

        transport = Transport(self._endpoint, self._flusher, self)
        if target.unix_path is not None:
            await loop.create_unix_connection(transport.as_protocol, target.unix_path)
        else:
            name = target.host if self._tls is not None else None
            await loop.create_connection(
                transport.as_protocol, target.host, target.port, ssl=self._tls, server_hostname=name
            )
        # One that is lost before, or says nothing, is no HTTP/2 server.
        await asyncio.wait((transport.greeted,), timeout=self._endpoint.limits.preface_timeout_s)
        if transport.greeted.cancelled() or not transport.greeted.done():
            transport.abort()
            raise ConnectionError(f"{target.authority} does not speak HTTP/2")

    def _tick(self) -> None:
        for transport in list(self._transports):
            transport.tick()
        self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick) if self._transports else None
