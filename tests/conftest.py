"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import settings

# No test fetches a model; read by huggingface_hub while it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# Its assertions are those of a test.
pytest.register_assert_rewrite("tests.fakes.http2_cases")

# A busy machine is slow, which is no defect.
settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Ends with the test what the test enters into it."""
    async with AsyncExitStack() as stack:
        yield stack
