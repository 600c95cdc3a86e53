"""A client of HTTP/2 that does as it is told, whatever the protocol says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hyperframe.frame import Frame, HeadersFrame, SettingsFrame

from tests.fakes.http2_peer import REQUEST, read_frames
from tests.fakes.http2_service import SERVICE
from tests.fakes.patience import PATIENCE_S
from tidegate.http2.fields import encode
from tidegate.http2.frames import PREFACE


class RawClient:
    """Writes frames to a socket and reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, *settings: Frame) -> RawClient:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.send(PREFACE, *(settings or (SettingsFrame(),)), SettingsFrame(flags=["ACK"]))
        return client

    def send(self, *frames: Frame | bytes) -> None:
        self.writer.write(b"".join(f if isinstance(f, bytes) else f.serialize() for f in frames))

    def request(self, stream_id: int, method: str, *, metadata: tuple[tuple[str, str], ...] = ()) -> HeadersFrame:
        fields = [(n, SERVICE + method if n == ":path" else v) for n, v in REQUEST]
        block = encode([(name.encode(), value.encode()) for name, value in [*fields, *metadata]])
        return HeadersFrame(stream_id, block, flags=["END_HEADERS"])

    async def until_closed(self) -> list[Frame]:
        """All frames up to the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            return read_frames(await self.reader.read())

    async def flood(self, frames: Callable[[int], tuple[Frame, ...]]) -> list[Frame]:
        """Send until the server has had enough."""
        with contextlib.suppress(ConnectionError):
            for turn in range(1_000_000):
                self.send(*frames(turn))
                await self.writer.drain()
                if self.reader.at_eof():
                    break
        with contextlib.suppress(ConnectionError):
            return await self.until_closed()
        return []

    def close(self) -> None:
        self.writer.transport.abort()
