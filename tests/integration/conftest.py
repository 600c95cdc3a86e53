"""The one real vLLM engine of a test session: it takes half a minute to start, and the memory of a second one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.fakes.real_vllm import RealVllm, real_vllm


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm() -> AsyncIterator[RealVllm]:
    """A worker over vLLM with the default model. Its tests run in the session's event loop, as it does."""
    async with real_vllm() as running:
        yield running
