"""How the attempts of one request follow one another: tenacity says how long to wait between them.

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
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, wait_random, wait_random_exponential

# In seconds: the bound of the first pause, which doubles, and the highest bound.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.2
# Between these two a job waits that was on an engine when it died, and had no token from it.
_SUSPECTS_PAUSE_S = (0.5, 1.0)

_PAUSE = wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S)
_SUSPECTS_PAUSE = wait_random(*_SUSPECTS_PAUSE_S)


# A state needs one; no loop of its own runs.
_NO_LOOP = AsyncRetrying()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnotherAttempt:
    """An attempt has ended, and another one may follow; after a pause if it ``has_failed``.

    ``is_suspect``: the engine died, perhaps of this job.
    """

    has_failed: bool
    is_suspect: bool = False


async def attempt_again(
    first: AnotherAttempt,
    attempt: Callable[[], Awaitable[AnotherAttempt | None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Behind an attempt that ended in ``first``: ``attempt`` until it ends in None.

    Most requests need one attempt and nothing of this. The loop is our own, with tenacity's waits: tenacity's loop
    holds on to each attempt's error, and so to all of its frames, while the next attempt runs, and then leaves them in
    a circle for the garbage collector.
    """
    state = RetryCallState(_NO_LOOP, None, (), {})
    another: AnotherAttempt | None = first
    while another is not None:
        await sleep(_pause_s(another, state))
        state.prepare_for_next_attempt()
        another = await attempt()


def _pause_s(ended: AnotherAttempt, state: RetryCallState) -> float:
    if not ended.has_failed:
        return 0.0
    return _SUSPECTS_PAUSE(state) if ended.is_suspect else _PAUSE(state)
