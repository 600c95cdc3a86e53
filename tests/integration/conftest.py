"""What integration tests share: the data planes that they run over, and the one real vLLM engine of a session."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.real_vllm import RealVllm, real_vllm


@pytest.fixture(params=["http2", "grpc"])
def data_plane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test that asks for it runs once on each plane: gateways and workers take it from here, also in processes."""
    plane: str = request.param
    monkeypatch.setenv("TIDEGATE_GATEWAY_DATA_PLANE", plane)
    monkeypatch.setenv("TIDEGATE_WORKER_DATA_PLANE", plane)
    return plane


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm() -> AsyncIterator[RealVllm]:
    """A worker over vLLM with the default model. Its tests run in the session's event loop, as it does.

    It takes half a minute to start, and a second one would take as much memory again.
    """
    async with real_vllm() as running:
        yield running
