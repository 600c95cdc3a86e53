"""The cases of tests/fakes/http2_cases.py from grpcio, grpc.aio, grpc-js and gRPC C++; directly, and through Envoy."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from string import Template

import pytest

from tests.fakes.http2_callers import AioCaller, Caller, SyncCaller
from tests.fakes.http2_cases import *  # noqa: F403 - the tests
from tests.fakes.http2_cases import Setup
from tests.fakes.http2_certificates import Certificates
from tests.fakes.http2_program import ProgramCaller
from tests.fakes.http2_service import EdgeService, Observations
from tests.fakes.patience import PATIENCE_S
from tidegate.client.stack import free_port
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.server import GrpcServer
from tidegate.http2.transport import Flusher

WAYS = ("direct", "direct-tls", "envoy", "envoy-tls")
CLIENTS = ("aio", "sync", "js", "cpp")

_TOOLS = Path(os.environ["TIDEGATE_CONFORMANCE_TOOLS"])
_ENVOY_CONFIG = Template((Path(__file__).parent / "envoy.yaml").read_text(encoding="utf-8"))
_DOWNSTREAM_TLS = """transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates:
            - {certificate_chain: {filename: "$FOLDER/server.pem"}, private_key: {filename: "$FOLDER/server.key"}}"""
_UPSTREAM_TLS = """transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          alpn_protocols: [h2]
          validation_context: {trusted_ca: {filename: "$FOLDER/ca.pem"}}"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority of our own."""
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=[(way, client) for way in WAYS for client in CLIENTS], ids="-".join)
async def setup(request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates) -> AsyncIterator[Setup]:
    """Every way to the edge with every client."""
    way, client = request.param
    is_tls = way.endswith("-tls")
    seen = Observations()
    flusher = Flusher(asyncio.get_running_loop())
    endpoint = Endpoint(role=Role.SERVER, clock=time.monotonic)
    server = GrpcServer(endpoint, EdgeService(seen).handlers(), flusher=flusher)
    port = await server.listen("127.0.0.1", 0, tls=certificates.server if is_tls else None)
    async with AsyncExitStack() as stack:
        if way.startswith("envoy"):
            port = await stack.enter_async_context(_envoy(tmp_path, port, certificates if is_tls else None))
        caller = await _caller(client, f"127.0.0.1:{port}", certificates if is_tls else None)
        yield Setup(caller, seen, server, server.drain)
        await caller.close()
    await server.drain(0.1)


async def _caller(client: str, address: str, certificates: Certificates | None) -> Caller:
    match client:
        case "aio":
            return AioCaller(address, certificates.credentials if certificates else None)
        case "sync":
            return SyncCaller(address, certificates.credentials if certificates else None)
        case "js":
            command = [shutil.which("node") or "node", str(_TOOLS / "client.js")]
        case _:
            command = [str(_TOOLS / "client")]
    return await ProgramCaller.start(command, address, certificates.folder / "ca.pem" if certificates else None)


@asynccontextmanager
async def _envoy(folder: Path, upstream: int, certificates: Certificates | None) -> AsyncIterator[int]:
    """An Envoy in front of the port ``upstream``; its own port. With certificates, TLS on both sides of it."""
    port = free_port()
    tls = [Template(text).substitute(FOLDER=certificates.folder) if certificates else "" for text in _TLS]
    config = folder / "envoy.yaml"
    config.write_text(
        _ENVOY_CONFIG.substitute(PORT=port, UPSTREAM=upstream, DOWNSTREAM=tls[0], UPSTREAM_TLS=tls[1]), "utf-8"
    )
    process = await asyncio.create_subprocess_exec(
        *(str(_TOOLS / "venv" / "bin" / "envoy"), "--use-dynamic-base-id", "--concurrency", "1"),
        *("--log-level", "error", "--drain-time-s", "1", "-c", str(config)),
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await _accepts(port):  # noqa: ASYNC110 - Envoy does not say when it listens
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.kill()
        await process.wait()


_TLS = (_DOWNSTREAM_TLS, _UPSTREAM_TLS)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
