"""grpc.health.v1 as a client sees it."""

from __future__ import annotations

from dataclasses import replace

import grpc.aio
from grpc_health.v1 import health_pb2

from tidegate.client.errors import TidegateError
from tidegate.client.explain import ExitCode
from tidegate.inference.v1 import inference_service_pb2
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError
from tidegate.worker.v1 import worker_service_pb2

# A service answers by its own name once it can serve; by "" as soon as the process does.
PROCESS = ""
_PRINT_TIMEOUT_S = 2.0  # a container's health check allows three
GATEWAY = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
WORKER = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name


async def print_health(target: str, service: str) -> ExitCode:
    """Print the status; how it is."""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        try:
            status = await check_health(channel, service, timeout_s=_PRINT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            failure = RpcError.from_call(error)
            if failure.code is grpc.StatusCode.NOT_FOUND:  # grpc.health.v1 says no more than that
                other = "a worker, perhaps (--worker)" if service == GATEWAY else "a gateway, perhaps"
                failure = replace(failure, message=f"{target} has no {service}: it is {other}")
            raise TidegateError(failure) from error
    print(status)  # noqa: T201 - the answer
    return ExitCode.OK if status == "SERVING" else ExitCode.UNAVAILABLE


async def check_health(channel: grpc.aio.Channel, service: str, *, timeout_s: float) -> str:
    """The status by name, such as SERVING. Raises ``grpc.aio.AioRpcError``."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    response = await check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    return name
