"""A client that takes a tenth of what the services take: it counts the calls that end, and reads nothing of them.

One HTTP/2 connection, whose windows never close, and a loop over the heads of frames. With a client that parses tokens
the machine would be busy with that, and what is measured would be the client's throughput.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from tidegate.http2 import frames
from tidegate.http2.fields import encode
from tidegate.http2.messages import framed
from tidegate.http2.request_head import request_fields

_PATIENCE_S = 60.0
_READ_BYTES = 2**18
_INITIAL_WINDOW_SIZE = 0x4
_WIDE, _WINDOW = 2**31 - 1, 2**16 - 1
# As Tidegate writes it: a literal.
_OK = b"grpc-status\x010"


class CallFailedError(Exception):
    """A call has not ended with OK."""


class Client:
    """Calls one method of one server, one round of calls after the other."""

    def __init__(self, address: str, method: str) -> None:
        """Connects. Each connection takes 2 GiB of answers."""
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), _PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = encode(request_fields(method, authority=address, is_tls=False, timeout_s=_PATIENCE_S))
        self._next_id = 1
        self._unread = b""
        opening = frames.PREFACE + frames.settings({_INITIAL_WINDOW_SIZE: _WIDE})
        self._socket.sendall(opening + frames.window_update(0, _WIDE - _WINDOW))

    def close(self) -> None:
        """The connection ends."""
        self._socket.close()

    def load(self, messages: Sequence[bytes], streams: int) -> None:
        """Send each of ``messages`` by a call of its own, ``streams`` at a time, and read all answers to their end."""
        left = iter(messages)
        open_calls = self._begin(left, streams)
        while open_calls:
            ended = sum(self._ends())
            open_calls += self._begin(left, ended) - ended

    def _begin(self, left: Iterator[bytes], count: int) -> int:
        """As many calls as there are, at most ``count``."""
        written: list[bytes] = []
        for _, message in zip(range(count), left, strict=False):
            body = framed(message)
            written += (
                frames.header_block(self._next_id, self._head, end_stream=False),
                frames.header(frames.DATA, frames.END_STREAM, self._next_id, len(body)) + body,
            )
            self._next_id += 2
        if written:
            self._socket.sendall(b"".join(written))
        return len(written) // 2

    def _ends(self) -> Iterator[bool]:
        """Of each frame that one read brings, whether a call ends with it."""
        read = self._socket.recv(_READ_BYTES)
        if not read:
            raise CallFailedError("the connection has ended")
        data, at = self._unread + read, 0
        while len(data) - at >= frames.HEADER_BYTES:
            end = at + frames.HEADER_BYTES + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind != frames.DATA or flags & frames.END_STREAM:
                yield self._is_end(kind, flags, data[at + frames.HEADER_BYTES : end])
            at = end
        self._unread = data[at:]

    def _is_end(self, kind: int, flags: int, payload: bytes) -> bool:
        if kind in (frames.SETTINGS, frames.PING) and not flags & frames.ACK:
            answer = frames.settings_ack() if kind == frames.SETTINGS else frames.ping(payload, ack=True)
            self._socket.sendall(answer)
        if kind in (frames.GOAWAY, frames.RST_STREAM):
            raise CallFailedError(payload.decode("ascii", "replace"))
        if kind not in (frames.HEADERS, frames.DATA) or not flags & frames.END_STREAM:
            return False
        if _OK not in payload:
            raise CallFailedError(payload.decode("ascii", "replace"))
        return True
