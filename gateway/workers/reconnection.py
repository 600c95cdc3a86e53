"""The one back-off policy of the gateway: how it comes back to a worker that it lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gateway.workers.errors import UnusableWorkerError, WorkerCallError

_LOGGER = logging.getLogger(__name__)

# A worker that was usable for so long, in seconds, is tried again at once; otherwise the waits go on growing.
_STABLE_S = 5.0
# One that does not answer, or has not loaded its model, may be ready at any moment, and to ask it costs little. One
# that failed its proof is likely to fail it again.
_CALL_FAILED = wait_random_exponential(multiplier=0.2, max=1.0)
_UNUSABLE = wait_random_exponential(multiplier=0.2, max=30.0)


async def reconnect_forever(
    session: Callable[[], Awaitable[None]], *, target: str, clock: Callable[[], float] = time.monotonic
) -> NoReturn:
    """Run ``session`` again and again; it ends by ``UnusableWorkerError`` or ``WorkerCallError``."""
    log = _ReasonLog(target)

    async def run_once() -> None:
        began_at = clock()
        try:
            await session()
        except (UnusableWorkerError, WorkerCallError) as error:
            if clock() - began_at < _STABLE_S:
                raise
            log.lost(error)

    retrying = AsyncRetrying(
        retry=retry_if_exception_type((UnusableWorkerError, WorkerCallError)),
        wait=_wait_s,
        before_sleep=log.before_sleep,
    )
    while True:
        await retrying(run_once)


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (_CALL_FAILED if isinstance(error, WorkerCallError) else _UNUSABLE)(state)


class _ReasonLog:
    """Logs why a worker is not used: each reason once, not once for each try."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._reason = ""

    def lost(self, error: BaseException) -> None:
        if str(error) != self._reason:
            self._reason = str(error)
            _LOGGER.warning("worker %s is not used: %s", self._target, error)

    def before_sleep(self, state: RetryCallState) -> None:
        if state.outcome is not None and (error := state.outcome.exception()) is not None:
            self.lost(error)
