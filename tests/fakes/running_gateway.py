"""A real gateway on a free port of localhost, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from gateway.app import Gateway
from gateway.config import GatewaySettings
from tests.fakes.patience import PATIENCE_S
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import Tracer

Response = inference_service_pb2.GenerateResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """The gateway, and a client of it."""

    gateway: Gateway
    life: asyncio.Task[int]  # its result is the exit code
    channel: grpc.aio.Channel
    stub: inference_service_pb2_grpc.InferenceServiceAsyncStub

    async def until_workers(self, count: int) -> None:
        """Wait until so many workers take jobs."""
        fleet = self.gateway.fleet
        while sum(not seat.load.is_draining for seat in fleet.seats) != count:
            if self.life.done():
                self.life.result()
            await asyncio.sleep(0.005)

    async def generate(
        self, request: inference_service_pb2.GenerateRequest, **call_options: Any
    ) -> tuple[list[Response], RpcError | None]:
        """All responses of one call, and its error."""
        call = self.stub.Generate(request, **call_options)
        responses: list[Response] = []
        try:
            async for response in call:
                responses.append(response)  # noqa: PERF401 - those before an error count, too
        except grpc.aio.AioRpcError as error:
            return responses, RpcError.from_call(error)
        return responses, None

    async def error(self, request: inference_service_pb2.GenerateRequest, **call_options: Any) -> RpcError:
        """The error of a call that has to fail."""
        _, error = await self.generate(request, **call_options)
        if error is None:
            raise AssertionError("the call succeeded")
        return error


def text_request(text: str = "hi", *, model: str = "m", **sampling: Any) -> inference_service_pb2.GenerateRequest:
    """A small valid request."""
    request = inference_service_pb2.GenerateRequest(model=model, text=text)
    for option, value in ({"max_output_tokens": 8} | sampling).items():
        setattr(request.sampling, option, value)
    return request


def text_of(responses: Sequence[Response]) -> str:
    """The output's text."""
    return "".join(piece for response in responses for piece in response.delta.text)


@asynccontextmanager
async def running_gateway(
    *workers: str,
    ready: int | None = None,
    tracer: Tracer | None = None,
    telemetry: Telemetry | None = None,
    **settings: Any,
) -> AsyncIterator[RunningGateway]:
    """Start a gateway, wait until ``ready`` workers (all, unless said otherwise) take jobs, and end it afterwards.

    On a busy machine a request may have to wait for a report: in tests that are not about it, no wait is too long.
    """
    settings = dict[str, Any](listen="127.0.0.1:0", admin_listen="", max_wait_s=PATIENCE_S) | settings
    gateway = Gateway(GatewaySettings(workers=workers, **settings), telemetry or Telemetry.silent(tracer))
    life = asyncio.create_task(gateway.run())
    listening = asyncio.create_task(gateway.listening.wait())
    await asyncio.wait((life, listening), return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    try:
        async with grpc.aio.insecure_channel(gateway.address, options=CHANNEL_OPTIONS) as channel:
            running = RunningGateway(
                gateway=gateway,
                life=life,
                channel=channel,
                stub=inference_service_pb2_grpc.InferenceServiceStub(channel),
            )
            async with asyncio.timeout(PATIENCE_S):
                await running.until_workers(len(workers) if ready is None else ready)
            yield running
    finally:
        gateway.stop()
        await life
