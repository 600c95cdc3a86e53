"""The port that a server process is reached by, on either of the two data planes (docs/adr/0010).

On ``grpc`` a grpc.aio server does everything. On ``http2`` the HTTP/2 edge serves the methods that carry tokens and
passes all others, stream by stream, to the same grpc.aio server on a Unix socket that nobody else can reach.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import grpc.aio

from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.limits import AbuseTally, Limits
from tidegate.http2.server import GrpcServer, Handler
from tidegate.http2.splice import Splicer
from tidegate.http2.transport import Flusher


class Port(Protocol):
    """Where clients come in."""

    async def open(self, listen: str, *, reuse_port: bool = False) -> str:
        """Serve at ``listen``, host:port; returns it with the port that was taken. Raises ``OSError``."""

    def send_away(self) -> None:
        """Take no more connections, and have clients leave those that stand, as far as the plane can do so gently.

        Calls that cross the GOAWAY are served: they get their refusal with a reason.
        """

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, let running ones finish for ``grace_s`` seconds, then end them."""


class GrpcPort:
    """grpc.aio's own port. Whether others may share it is decided by the server's options."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    async def open(self, listen: str, *, reuse_port: bool = False) -> str:  # noqa: ARG002 - see above
        """As ``Port.open``."""
        host, _, _ = listen.rpartition(":")
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError as error:  # what core knows of the cause, it has written to the log
            raise OSError("the line above says why") from error
        await self._server.start()
        return f"{host}:{port}"

    def send_away(self) -> None:
        """Not gently: core cancels the calls that cross its GOAWAY. Health checks have to do here."""

    async def stop(self, grace_s: float) -> None:
        """As ``Port.stop``."""
        await self._server.stop(grace_s)


class Http2Port:
    """The HTTP/2 edge before a grpc.aio server."""

    def __init__(
        self,
        server: grpc.aio.Server,
        handlers: Mapping[str, Handler],
        *,
        flusher: Flusher,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``handlers`` by full method name serve here; ``server`` serves the rest. Make it inside an event loop."""
        self.abuse = AbuseTally()
        self._server = server
        self._tls = tls
        self._directory = tempfile.TemporaryDirectory(prefix="tidegate-")
        self._socket = str(Path(self._directory.name) / "rest.sock")
        # The server behind is this same process: a ping that it owes would tell nothing.
        behind = Endpoint(role=Role.CLIENT, clock=time.monotonic, limits=Limits(keepalive_s=3600.0))
        self._channel = Channel(behind, Target(unix_path=self._socket), flusher=flusher)
        front = Endpoint(role=Role.SERVER, clock=time.monotonic, limits=limits, tally=self.abuse)
        self._edge = GrpcServer(front, handlers, flusher=flusher, fallback=Splicer(self._channel))

    async def open(self, listen: str, *, reuse_port: bool = False) -> str:
        """As ``Port.open``."""
        host, _, port = listen.rpartition(":")
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()
        try:
            taken = await self._edge.listen(host.strip("[]"), int(port), tls=self._tls, reuse_port=reuse_port)
        except OSError:
            await self.stop(0)
            raise
        return f"{host}:{taken}"

    def unread(self) -> list[int]:
        """Bytes held for clients, for each call whose client has not read all of its answer. From any thread."""
        return self._edge.unread()

    def send_away(self) -> None:
        """As ``Port.send_away``."""
        self._edge.send_away()

    async def stop(self, grace_s: float) -> None:
        """As ``Port.stop``. The two halves end together: what is passed on ends with either."""
        await asyncio.gather(self._edge.drain(grace_s), self._server.stop(grace_s))
        self._channel.close()
        self._directory.cleanup()
