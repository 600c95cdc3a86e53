"""How the attempts of one request follow one another: tenacity waits between them, and says for how long.

A failure before the first event is followed by another attempt after a pause of full jitter (gRFC A6), so that the
jobs that failed together do not all come to the next worker at one instant. A job that may have killed its engine
comes last, and alone as far as may be: streams that were there, too, have shown by then, with a token from the next
worker, that it was not them. Where a worker was full, or a stream goes on elsewhere, the waiting room and
``policy/continuation.py`` know better when to come again. Whether there is another attempt at all is decided by
``policy/attempts.py`` and its budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random, wait_random_exponential

# In seconds: the bound of the first pause, which doubles, and the highest bound.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.2
# Between these two a job waits that was on an engine when it died, and had no token from it.
_SUSPECTS_PAUSE_S = (0.5, 1.0)

_PAUSE = wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S)
_SUSPECTS_PAUSE = wait_random(*_SUSPECTS_PAUSE_S)


class AnotherAttempt(Exception):  # noqa: N818 - no error: it says what comes next
    """The attempt has ended, and another one may follow; after a pause if it ``has_failed``.

    ``is_suspect``: the engine died, perhaps of this job.
    """

    def __init__(self, *, has_failed: bool, is_suspect: bool = False) -> None:
        super().__init__()
        self.has_failed = has_failed
        self.is_suspect = is_suspect


async def attempt_again(
    first: AnotherAttempt,
    attempt: Callable[[], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Behind an attempt that ended in ``first``: ``attempt`` until it does not end in ``AnotherAttempt``.

    Most requests need one attempt and nothing of this.
    """
    retrying = AsyncRetrying(retry=retry_if_exception_type(AnotherAttempt), wait=_pause_s, sleep=sleep)
    async for turn in retrying:
        with turn:
            if turn.retry_state.attempt_number == 1:
                raise first
            await attempt()


def _pause_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, AnotherAttempt) or not error.has_failed:
        return 0.0
    return _SUSPECTS_PAUSE(state) if error.is_suspect else _PAUSE(state)
