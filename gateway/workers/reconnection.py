"""The one back-off policy of the gateway: how it comes back to a worker that it lost."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gateway.workers.errors import LostWorkerError, UnusableWorkerError, WorkerCallError

_LOGGER = logging.getLogger(__name__)

# A worker that was usable for so long, in seconds, is tried again at once; otherwise the waits go on growing.
_STABLE_S = 5.0
# One that does not answer, has not loaded its model, or was lost again as soon as it was back may be ready at any
# moment, and to ask it costs little. One that failed its proof is likely to fail it again.
_MAY_BE_READY = wait_random_exponential(multiplier=0.2, max=1.0)
_UNUSABLE = wait_random_exponential(multiplier=0.2, max=30.0)


async def reconnect_forever(
    session: Callable[[Callable[[], None]], Awaitable[None]],
    *,
    target: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Run ``session``, which ends by raising, again and again. Nothing that it raises ends the process.

    It calls what it is given once the worker is in use; time spent on connecting does not make a worker stable.
    """
    log = _ReasonLog(target)

    async def run_once() -> None:
        in_use_since = math.inf

        def begin_use() -> None:
            nonlocal in_use_since
            in_use_since = clock()

        try:
            await session(begin_use)
        except Exception as error:
            is_stable = clock() - in_use_since >= _STABLE_S
            log.lost(error, is_news=is_stable)
            if not is_stable:
                raise

    retrying = AsyncRetrying(retry=retry_if_exception_type(), wait=_wait_s, sleep=sleep)
    while True:
        await retrying(run_once)


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (_MAY_BE_READY if isinstance(error, WorkerCallError | LostWorkerError) else _UNUSABLE)(state)


class _ReasonLog:
    """Logs why a worker is not used: each reason once, and not once for each try."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._reason = ""

    def lost(self, error: Exception, *, is_news: bool) -> None:
        """``is_news``: the worker was in use until now."""
        if str(error) == self._reason and not is_news:
            return
        self._reason = str(error)
        if isinstance(error, UnusableWorkerError | WorkerCallError):
            _LOGGER.warning("worker %s is not used: %s", self._target, error)
        else:
            _LOGGER.error("worker %s is not used, for a defect of this gateway", self._target, exc_info=error)
