"""One worker's API as seen from here: typed calls on one channel, and errors in our own form.

Every stream is a context manager: leaving it cancels the call, which frees the request's KV blocks on the worker.
(Leaving ``async for`` alone does not cancel a call of grpc.aio.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from gateway.policy.quarantine import Suspect
from gateway.workers.errors import WorkerCallError
from tidegate.rpc.server import DEFAULT_KEEPALIVE, Keepalive, channel_options
from tidegate.rpc.status import RpcError
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

GENERATE = "/tidegate.worker.v1.WorkerService/Generate"

# An attempt to connect that nobody answers is given up after this; gRPC's 20 s would outlast a healed partition.
_CONNECT_TIMEOUT_MS = 3_000
_HANDSHAKE_TIMEOUT_S = 10.0
_SHARE_TIMEOUT_S = 2.0
_TOKENIZER_TIMEOUT_S = 60.0


class WorkerClient:
    """Calls one worker. Make it inside a running event loop."""

    def __init__(self, target: str, *, keepalive: Keepalive = DEFAULT_KEEPALIVE) -> None:
        """``target`` is host:port. Nothing is connected before the first call."""
        self.target = target
        options = (*channel_options(keepalive), ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS))
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._stub = worker_service_pb2_grpc.WorkerServiceStub(self._channel)
        self._generate: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(GENERATE)

    async def get_model(self) -> worker_service_pb2.GetModelResponse:
        """The handshake; waits for the connection. Raises ``WorkerCallError``."""
        call = self._stub.GetModel(
            worker_service_pb2.GetModelRequest(), timeout=_HANDSHAKE_TIMEOUT_S, wait_for_ready=True
        )
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise WorkerCallError(RpcError.from_call(error)) from error

    async def get_tokenizer(self) -> Mapping[worker_service_pb2.TokenizerFile.ValueType, bytes]:
        """The files to render and tokenise with; those that the worker has. Raises ``WorkerCallError``."""
        call = self._stub.GetTokenizer(worker_service_pb2.GetTokenizerRequest(), timeout=_TOKENIZER_TIMEOUT_S)
        files: dict[worker_service_pb2.TokenizerFile.ValueType, bytearray] = {}
        async with _held(call) as pieces:
            async for piece in pieces:
                files.setdefault(piece.file, bytearray()).extend(piece.data)
        return {file: bytes(content) for file, content in files.items()}

    @asynccontextmanager
    async def watch_load(self) -> AsyncIterator[AsyncIterator[worker_service_pb2.WatchLoadResponse]]:
        """The worker's load reports, without end. Raises ``WorkerCallError``."""
        async with _held(self._stub.WatchLoad(worker_service_pb2.WatchLoadRequest())) as reports:
            yield reports

    @asynccontextmanager
    async def generate(
        self,
        job: bytes,
        *,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...],
        on_head: Callable[[Iterable[tuple[str, str | bytes]]], None],
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The events of one generation; ``job`` and they are serialised messages, ``on_head`` gets initial metadata.

        Fails at once when the worker is not connected. Raises ``WorkerCallError``.
        """
        call = self._generate(job, timeout=timeout_s, metadata=metadata)
        async with _held(call) as messages:
            on_head(await call.initial_metadata())
            yield messages

    async def share_suspects(self, suspects: Iterable[Suspect]) -> None:
        """Have the worker tell all gateways. Raises ``WorkerCallError``."""
        request = worker_service_pb2.ShareSuspectsRequest()
        for suspect in suspects:
            shared = request.suspects.add(
                request_digest=suspect.digest, instance_id=suspect.instance_id, is_silent=suspect.is_silent
            )
            shared.remaining_duration.FromNanoseconds(round(suspect.remaining_s * 1e9))
        try:
            await self._stub.ShareSuspects(request, timeout=_SHARE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise WorkerCallError(RpcError.from_call(error)) from error

    async def close(self) -> None:
        """End all calls."""
        await self._channel.close()


@asynccontextmanager
async def _held(call: Any) -> AsyncIterator[Any]:
    """The messages of ``call``, which is cancelled on the way out if it has not ended by then."""
    try:
        yield aiter(call)
    except grpc.aio.AioRpcError as error:
        raise WorkerCallError(RpcError.from_call(error)) from error
    finally:
        call.cancel()
