"""What every test may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Ends with the test what the test enters into it."""
    async with AsyncExitStack() as stack:
        yield stack
