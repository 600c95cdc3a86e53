"""The cases of tests/fakes/http2_cases.py with the clients of Python; tests/conformance has the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.fakes.http2_callers import AioCaller, Caller, EdgeCaller, SyncCaller
from tests.fakes.http2_cases import *  # noqa: F403 - the tests
from tests.fakes.http2_cases import Setup
from tests.fakes.http2_certificates import Certificates
from tests.fakes.http2_service import AioService, EdgeService, Observations
from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.server import GrpcServer
from tidegate.http2.splice import Splicer
from tidegate.http2.transport import Flusher
from tidegate.rpc.server import server_options

WAYS = ("edge", "edge-tls", "spliced", "reference")
CLIENTS = ("aio", "sync", "edge-client")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority of our own."""
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=[(way, client) for way in WAYS for client in CLIENTS], ids="-".join)
async def setup(request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates) -> AsyncIterator[Setup]:
    """Every way to the service with every client."""
    way, client = request.param
    seen = Observations()
    flusher = Flusher(asyncio.get_running_loop())
    aio_server: Any = None
    edge: GrpcServer | None = None
    inner: Channel | None = None
    endpoint = Endpoint(role=Role.SERVER, clock=time.monotonic)
    client_endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic)
    port = 0
    if not way.startswith("edge"):
        aio_server = grpc.aio.server(options=server_options(), handlers=(AioService(seen),))
        path = tmp_path / "grpc.sock"
        port = aio_server.add_insecure_port(f"unix:{path}" if way == "spliced" else "127.0.0.1:0")
        await aio_server.start()
    if way == "spliced":
        inner = Channel(client_endpoint, Target(unix_path=str(path)), flusher=flusher)
        edge = GrpcServer(endpoint, {}, flusher=flusher, fallback=Splicer(inner))
    if way.startswith("edge"):
        edge = GrpcServer(endpoint, EdgeService(seen).handlers(), flusher=flusher)
    if edge is not None:
        port = await edge.listen("127.0.0.1", 0, tls=certificates.server if way == "edge-tls" else None)
    caller: Caller
    credentials = certificates.credentials if way == "edge-tls" else None
    match client:
        case "aio":
            caller = AioCaller(f"127.0.0.1:{port}", credentials)
        case "sync":
            caller = SyncCaller(f"127.0.0.1:{port}", credentials)
        case _:
            tls = certificates.client if way == "edge-tls" else None
            target = Target(host="127.0.0.1", port=port)
            caller = EdgeCaller(Channel(client_endpoint, target, flusher=flusher, tls=tls))
    yield Setup(caller, seen, edge, aio_server.stop if edge is None else edge.drain)
    await caller.close()
    if edge is not None:
        await edge.drain(0.1)
    if inner is not None:
        inner.close()
    if aio_server is not None:
        await aio_server.stop(None)
