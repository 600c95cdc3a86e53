"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, settings

# No test fetches a model; read by huggingface_hub while it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# Its assertions are those of a test.
pytest.register_assert_rewrite("tests.fakes.http2_cases")

# A busy machine is slow, which is no defect. Examples are the same in every run, so that a run says something of the
# code and not of its luck; whoever looks for new ones says HYPOTHESIS_PROFILE=thorough.
settings.register_profile("tidegate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("tidegate"), derandomize=False)
settings.load_profile("thorough" if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else "tidegate")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Ends with the test what the test enters into it."""
    async with AsyncExitStack() as stack:
        yield stack
