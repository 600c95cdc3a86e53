"""Clients that misbehave: those that vanish at some byte, and those that stop reading. Byte by byte, on raw sockets."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field

from hyperframe.frame import SettingsFrame

from tidegate.http2 import frames
from tidegate.http2.fields import encode
from tidegate.http2.messages import framed
from tidegate.http2.request_head import request_fields
from tidegate.inference.v1 import inference_service_pb2
from tidegate.rpc.metadata import TRACEPARENT
from tidegate.rpc.token_ids import packed
from tidegate.worker.v1 import worker_service_pb2

_GENERATE = "/tidegate.inference.v1.InferenceService/Generate"
_GENERATE_AT_WORKER = "/tidegate.worker.v1.WorkerService/Generate"
_PROMPT = (3, 4, 5, 6)  # of the sim's tokens, some four as a text has
_STREAM_ID = 1
# What a stalled reader lets the server send: Started and a token or two.
_STALLED_WINDOW_BYTES, _WIDE_WINDOW_BYTES = 512, 2**30
# Of an answer, before its client vanishes: its head, and some tokens.
# Different prompts; caches have them all soon, and what grows behind that is no cache.
_STORIES = 100
_MOST_READ_BYTES = 800
_MOST_PATIENCE_S = 5.0


@dataclass(kw_only=True)
class Vanished:
    """A client that is gone. ``at_ns`` is by the time of day, as spans are; ``sent_all`` of its request."""

    trace_id: str = field(default_factory=lambda: os.urandom(16).hex())
    at_ns: int = 0
    sent_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asks, and how much of the answer it lets the server send before it takes any."""

    text: str
    tokens: int
    checkpoint_sha256: str = ""  # of a worker that is called itself, past its gateway
    logprobs: int | None = None
    window_bytes: int | None = None
    trace_id: str = field(default_factory=lambda: os.urandom(16).hex())


def conversation(address: str, call: Call) -> bytes:
    """All that a client sends for one call on a connection of its own."""
    request: inference_service_pb2.GenerateRequest | worker_service_pb2.GenerateRequest
    if call.checkpoint_sha256:
        request = worker_service_pb2.GenerateRequest(
            response_id=call.trace_id, checkpoint_sha256=call.checkpoint_sha256, prompt_token_ids=packed(_PROMPT)
        )
    else:
        request = inference_service_pb2.GenerateRequest(model="sim", text=call.text)
    request.sampling.max_output_tokens = request.sampling.min_output_tokens = call.tokens
    request.output.include_token_ids = True
    if call.logprobs is not None:
        request.output.logprobs = call.logprobs
    metadata = ((TRACEPARENT, f"00-{call.trace_id}-{os.urandom(8).hex()}-01"),)
    path = _GENERATE_AT_WORKER if call.checkpoint_sha256 else _GENERATE
    head = encode(request_fields(path, authority=address, is_tls=False, metadata=metadata))
    body = framed(request.SerializeToString())
    values = {} if call.window_bytes is None else {SettingsFrame.INITIAL_WINDOW_SIZE: call.window_bytes}
    return b"".join(
        (
            frames.PREFACE,
            frames.settings(values),
            frames.settings_ack(),  # of the server's, which are sure to come; who sends none is put out after a while
            frames.header_block(_STREAM_ID, head, end_stream=False),
            frames.header(frames.DATA, frames.END_STREAM, _STREAM_ID, len(body)),
            body,
        )
    )


async def vanish(address: str, rng: random.Random, *, tokens: int) -> Vanished:
    """Call, and be gone at a byte drawn from request and answer: by a FIN, a RST, or a RST_STREAM and a FIN."""
    gone = Vanished()
    text = f"Story number {rng.randrange(_STORIES)}"
    said = conversation(address, Call(text=text, tokens=tokens, trace_id=gone.trace_id))
    cut = rng.randrange(1, len(said) + _MOST_READ_BYTES)
    gone.sent_all = cut >= len(said)
    reader, writer = await _connect(address)
    try:
        writer.write(said[:cut])
        await _read(reader, cut - len(said))
        how = rng.choice(("fin", "rst", "rst_stream"))
        if how == "rst_stream" and gone.sent_all:
            writer.write(frames.rst_stream(_STREAM_ID, 8))
        if how == "rst":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    finally:
        gone.at_ns = time.time_ns()
        writer.close()
    return gone


@dataclass(kw_only=True)
class Reader:
    """A client in the middle of its answer. Close it."""

    writer: asyncio.StreamWriter
    reading: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Be gone."""
        if self.reading is not None:
            self.reading.cancel()
        self.writer.close()


async def stall(address: str, number: int, *, tokens: int, logprobs: int | None = None) -> Reader:
    """Call, read the first tokens, and take no more."""
    call = Call(text=f"Slow story {number}", tokens=tokens, logprobs=logprobs, window_bytes=_STALLED_WINDOW_BYTES)
    reader, writer = await _connect(address)
    writer.write(conversation(address, call))
    await _read(reader, _STALLED_WINDOW_BYTES)
    return Reader(writer=writer)


async def read_along(
    address: str, number: int, *, tokens: int, logprobs: int | None = None, checkpoint_sha256: str = ""
) -> Reader:
    """Call, and read all that comes; of a worker itself where its checkpoint is named."""
    call = Call(
        text=f"Slow story {number}",
        tokens=tokens,
        checkpoint_sha256=checkpoint_sha256,
        logprobs=logprobs,
        window_bytes=_WIDE_WINDOW_BYTES,
    )
    reader, writer = await _connect(address)
    writer.write(conversation(address, call) + frames.window_update(0, _WIDE_WINDOW_BYTES))

    async def read() -> None:
        while await reader.read(2**16):
            pass

    return Reader(writer=writer, reading=asyncio.create_task(read()))


async def _read(reader: asyncio.StreamReader, size: int) -> None:
    """Up to ``size`` bytes: less where the server is done, or takes too long."""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_MOST_PATIENCE_S):
            while size > 0 and (heard := await reader.read(size)):
                size -= len(heard)


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))
