from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from tests.fakes.patience import PATIENCE_S
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import abort
from tidegate.rpc.status import INFERENCE_DOMAIN, RpcError

_SERVICE_CONFIG = (Path(__file__).parents[2] / "protos" / "service_config.json").read_text(encoding="utf-8")
_SERVICE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name

_Request = inference_service_pb2.GenerateRequest
_Response = inference_service_pb2.GenerateResponse


class FlakyService(inference_service_pb2_grpc.InferenceServiceServicer):
    """Generate fails with ``error`` on its first ``failures`` calls, after ``messages_before`` messages."""

    def __init__(self, error: RpcError, *, failures: int, messages_before: int = 0) -> None:
        self.calls = 0
        self._error = error
        self._failures = failures
        self._messages_before = messages_before

    async def Generate(self, request: _Request, context: Any) -> AsyncIterator[_Response]:
        self.calls += 1
        for _ in range(self._messages_before):
            yield _Response()
        if self.calls <= self._failures:
            await abort(context, self._error)
        yield _Response()

    async def Tokenize(self, request: Any, context: Any) -> inference_service_pb2.TokenizeResponse:
        raise NotImplementedError

    async def ListModels(self, request: Any, context: Any) -> inference_service_pb2.ListModelsResponse:
        raise NotImplementedError

    async def GetModel(self, request: Any, context: Any) -> inference_service_pb2.GetModelResponse:
        raise NotImplementedError


@asynccontextmanager
async def serving(
    service: FlakyService, health: health_pb2.HealthCheckResponse.ServingStatus = health_pb2.HealthCheckResponse.SERVING
) -> AsyncIterator[int]:
    """The port of a server of ``service`` in the given health."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    checks = health_aio.HealthServicer()
    await checks.set(_SERVICE, health)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def configured_channel(*ports: int) -> grpc.aio.Channel:
    """A channel with the shipped configuration to all of ``ports``."""
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    options = (("grpc.service_config", _SERVICE_CONFIG), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.insecure_channel(target, options=options)


async def generate(port: int) -> int:
    """Call Generate once; how many messages came. Raises ``AioRpcError``."""
    async with configured_channel(port) as channel:
        call = inference_service_pb2_grpc.InferenceServiceStub(channel).Generate(_Request(), timeout=PATIENCE_S)
        return len([message async for message in call])


def refusal(code: grpc.StatusCode, *, retry_after_s: float | None = None) -> RpcError:
    """An error as the gateway sends it."""
    return RpcError(code=code, reason="TEST", domain=INFERENCE_DOMAIN, message="no", retry_after_s=retry_after_s)


async def test_unavailable_is_retried_until_it_works() -> None:
    """A restarted gateway costs its clients no error."""
    service = FlakyService(refusal(grpc.StatusCode.UNAVAILABLE), failures=2)
    async with serving(service) as port:
        assert 1 == await generate(port)
    assert 3 == service.calls


async def test_the_servers_pushback_sets_the_wait() -> None:
    """RetryInfo's wait travels as pushback too, and takes the place of the client's own back-off."""
    patient = FlakyService(refusal(grpc.StatusCode.UNAVAILABLE, retry_after_s=0.7), failures=1)
    loop = asyncio.get_running_loop()
    async with serving(patient) as port:
        started = loop.time()
        await generate(port)
        waited_s = loop.time() - started
    assert 2 == patient.calls
    assert waited_s >= 0.7  # the client's own first back-off is 0.12 s at most


async def test_attempts_are_limited() -> None:
    """A gateway that stays away is asked four times."""
    service = FlakyService(refusal(grpc.StatusCode.UNAVAILABLE), failures=100)
    async with serving(service) as port:
        with pytest.raises(grpc.aio.AioRpcError):
            await generate(port)
    assert 4 == service.calls


@pytest.mark.parametrize(
    "error",
    [
        refusal(grpc.StatusCode.INVALID_ARGUMENT),
        refusal(grpc.StatusCode.INTERNAL),
        refusal(grpc.StatusCode.DEADLINE_EXCEEDED),
        refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.01),
    ],
    ids=lambda error: error.code.name,
)
async def test_other_errors_are_not_retried(error: RpcError) -> None:
    """Only UNAVAILABLE is retried unasked (AIP-194)."""
    service = FlakyService(error, failures=100)
    async with serving(service) as port:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(port)
    assert (error.code, 1) == (caught.value.code(), service.calls)


async def test_a_stream_that_has_begun_is_not_retried() -> None:
    """After the first message a retry would repeat output."""
    service = FlakyService(refusal(grpc.StatusCode.UNAVAILABLE), failures=100, messages_before=1)
    async with serving(service) as port:
        with pytest.raises(grpc.aio.AioRpcError):
            await generate(port)
    assert 1 == service.calls


async def test_replicas_share_the_calls_and_one_that_is_not_serving_gets_none() -> None:
    """Round robin over the replicas that grpc.health.v1 calls healthy, for the service's own name."""
    none = refusal(grpc.StatusCode.INTERNAL)
    first, second, draining = (FlakyService(none, failures=0) for _ in range(3))
    async with (
        serving(first) as a,
        serving(second) as b,
        serving(draining, health_pb2.HealthCheckResponse.NOT_SERVING) as c,
        configured_channel(a, b, c) as channel,
    ):
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        async with asyncio.timeout(PATIENCE_S):
            while not (first.calls and second.calls):
                async for _ in stub.Generate(_Request(), wait_for_ready=True):
                    pass
    assert 0 == draining.calls
