"""A thin asyncio client of ``tidegate.inference.v1``: protos in, protos out, and no surprise in between."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from tidegate.client.errors import TidegateError
from tidegate.client.received import Event, Received
from tidegate.client.retry import RetryPolicy
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc, model_pb2
from tidegate.rpc.metadata import REQUEST_ID
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Client:
    """Calls one gateway, or several behind one name.

    Every call has a deadline, is retried only while nothing of its answer has arrived, or resumed, and fails with
    ``TidegateError``. Use it as an async context manager, or ``close`` it.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """Own ``channel``: give one with credentials for TLS, or use ``connect``."""
        self._channel = channel
        self._stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()

    @classmethod
    def connect(cls, target: str, *, retry: RetryPolicy | None = None) -> Self:
        """Use ``target`` in plain text, such as ``127.0.0.1:50051``. The connection is made by the first call."""
        return cls(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS), retry=retry)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls that still run are cancelled."""
        await self._channel.close()

    async def generate(
        self, request: inference_service_pb2.GenerateRequest, *, timeout_s: float = 120.0, request_id: str = ""
    ) -> AsyncGenerator[Event]:
        """Stream the answer: one ``Started``, any number of ``Delta``, one ``Finished``.

        With ``output.include_resume_token``, and where the server offers it, an answer whose connection or gateway was
        lost goes on by another call, without a gap or a duplicate.

        Leaving the loop early, or cancelling the task, cancels the call, and the worker frees its KV blocks. Use
        ``contextlib.aclosing`` where that must happen at once also outside CPython.
        """
        deadline = self._clock() + timeout_s
        metadata = ((REQUEST_ID, request_id),) if request_id else ()
        attempt, received = 1, Received()
        while True:
            # `async for` alone does not cancel the call when its loop is left; hence the `finally`.
            call = self._stub.Generate(received.request(request), timeout=deadline - self._clock(), metadata=metadata)
            try:
                async for response in call:
                    if (event := received.take(response)) is not None:
                        yield event
            except grpc.aio.AioRpcError as error:
                failure = RpcError.from_call(error)
                if received.has_begun and not received.can_resume:
                    raise TidegateError(failure) from error
                if received.has_progressed:
                    attempt = 1
                await self._wait_or_raise(failure, attempt=attempt, deadline=deadline)
            else:
                if not received.has_finished:
                    raise TidegateError(_incomplete())
                return
            finally:
                call.cancel()
            attempt += 1

    async def tokenize(
        self, request: inference_service_pb2.TokenizeRequest, *, timeout_s: float = 10.0
    ) -> inference_service_pb2.TokenizeResponse:
        """Render and tokenise a prompt exactly as ``generate`` would."""
        return await self._unary(self._stub.Tokenize, request, timeout_s)

    async def list_models(self, *, timeout_s: float = 10.0) -> list[model_pb2.Model]:
        """All models that are served, ordered by name."""
        models: list[model_pb2.Model] = []
        request = inference_service_pb2.ListModelsRequest()
        while True:
            page = await self._unary(self._stub.ListModels, request, timeout_s)
            models.extend(page.models)
            if not page.next_page_token:
                return models
            request = inference_service_pb2.ListModelsRequest(page_token=page.next_page_token)

    async def _unary(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout_s: float
    ) -> _Response:
        deadline = self._clock() + timeout_s
        attempt = 1
        while True:
            try:
                return await method(request, timeout=deadline - self._clock())
            except grpc.aio.AioRpcError as error:
                await self._wait_or_raise(RpcError.from_call(error), attempt=attempt, deadline=deadline)
            attempt += 1

    async def _wait_or_raise(self, failure: RpcError, *, attempt: int, deadline: float) -> None:
        remaining_s = deadline - self._clock()
        wait_s = self._retry.wait_s(failure, attempt=attempt, remaining_s=remaining_s, rng=self._rng)
        if wait_s is None:
            raise TidegateError(failure)
        await self._sleep(wait_s)


def _incomplete() -> RpcError:
    message = "the stream ended without Finished: a defect of the server, or of a proxy on the way"
    return RpcError(code=grpc.StatusCode.UNKNOWN, reason="", domain="", message=message)
