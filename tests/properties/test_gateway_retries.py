from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.retries import AnotherAttempt, attempt_again


@given(have_failed=st.lists(st.booleans(), min_size=1, max_size=12))
def test_pauses_follow_failures_only_and_are_bounded(have_failed: list[bool]) -> None:
    """Each pause is drawn from nothing to a bound that doubles and ends at 0.2 s; as many attempts follow as may."""
    pauses: list[float] = []
    ends = iter([*(AnotherAttempt(has_failed=has_failed) for has_failed in have_failed[1:]), None])

    async def attempt() -> AnotherAttempt | None:
        return next(ends)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    asyncio.run(attempt_again(AnotherAttempt(has_failed=have_failed[0]), attempt, sleep=sleep))
    assert len(have_failed) == len(pauses)
    assert [] == list(ends)
    bounds = [min(0.2, 0.02 * 2.0**number) if has_failed else 0.0 for number, has_failed in enumerate(have_failed)]
    assert all(0 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))


def test_pauses_are_jittered() -> None:
    """Requests that failed together come back one by one."""
    pauses: list[float] = []

    async def attempt() -> None:
        """It comes through."""

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    for _ in range(50):
        asyncio.run(attempt_again(AnotherAttempt(has_failed=True), attempt, sleep=sleep))
    assert 50 == len(set(pauses))


def test_a_job_that_may_have_killed_its_engine_comes_behind_the_others() -> None:
    """Streams that were there, too, have had a token from the next worker by then."""
    pauses: list[float] = []

    async def attempt() -> None:
        """It comes through."""

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    for _ in range(50):
        asyncio.run(attempt_again(AnotherAttempt(has_failed=True, is_suspect=True), attempt, sleep=sleep))
    assert all(0.5 <= pause <= 1.0 for pause in pauses)
    assert 50 == len(set(pauses))
