from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.policy.balancer import Candidate, pick
from tests.fakes.worker_loads import worker_load


def candidate(
    worker_id: str, *, unseen_blocks: int = 0, in_flight: int = 0, is_doubtful: bool = False, **fields: Any
) -> Candidate:
    """A worker with ``fields`` of its load."""
    return Candidate(
        worker_id=worker_id,
        load=worker_load(**fields),
        unseen_blocks=unseen_blocks,
        in_flight=in_flight,
        is_doubtful=is_doubtful,
    )


def picked(*candidates: Candidate, need_tokens: int = 16, exclude: tuple[str, ...] = (), seed: int = 0) -> str | None:
    """The worker chosen for a job of one block."""
    best = pick(candidates, need_tokens=need_tokens, exclude=exclude, rng=random.Random(seed))
    return best.worker_id if best else None


def test_the_worker_with_the_most_free_blocks_is_chosen() -> None:
    """Free blocks decide."""
    assert "b" == picked(candidate("a", free_blocks=10), candidate("b", free_blocks=20))


def test_blocks_that_are_promised_are_not_free() -> None:
    """A worker whose free blocks are all promised has no room."""
    assert "b" == picked(candidate("a", reserved_blocks=95), candidate("b", free_blocks=20))


def test_blocks_sent_since_the_report_count() -> None:
    """A burst within one report interval is spread."""
    assert "b" == picked(candidate("a", unseen_blocks=90), candidate("b", free_blocks=20))


def test_among_equals_the_one_with_fewest_jobs_is_chosen() -> None:
    """Ties go by this gateway's own jobs."""
    assert "b" == picked(candidate("a", in_flight=2), candidate("b", in_flight=1))


def test_chance_decides_the_rest() -> None:
    """Gateways that see the same do not all choose the same."""
    choices = {picked(candidate("a"), candidate("b"), candidate("c"), seed=seed) for seed in range(50)}
    assert {"a", "b", "c"} == choices


def test_doubtful_workers_come_last_but_come() -> None:
    """A gateway never ejects its whole fleet on its own opinion."""
    doubtful, busy = candidate("a", is_doubtful=True), candidate("b", free_blocks=0)
    assert "b" == picked(doubtful, busy)
    assert "a" == picked(doubtful, busy, exclude=("b",))


def test_a_worker_is_chosen_even_when_none_has_room() -> None:
    """Only the worker knows its ledger, so that only the worker refuses."""
    assert "a" == picked(candidate("a", free_blocks=0, unseen_blocks=500))


def test_a_job_larger_than_a_workers_pool_never_goes_there() -> None:
    """It would deadlock the engine's scheduler."""
    assert "b" == picked(candidate("a"), candidate("b", total_blocks=101, free_blocks=1), need_tokens=1601)


def test_there_may_be_nobody_left() -> None:
    """None, not an error: what it means is for the caller to say."""
    assert picked(candidate("a"), exclude=("a",)) is None


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (0, 0)])
def test_tokens_fill_whole_blocks(tokens: int, blocks: int) -> None:
    """A block holds one request's tokens only."""
    assert blocks == candidate("a").blocks_for(tokens)
