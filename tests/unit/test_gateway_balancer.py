from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from gateway.policy.balancer import pick
from gateway.policy.candidate import Candidate
from gateway.policy.demand import Demand
from gateway.policy.prediction import best_prefill_rate, predicted_ttft_s
from tests.fakes.worker_loads import worker_load

FIELDS = {"unseen_blocks", "unseen_prefill_tokens", "in_flight", "cached_tokens", "weight", "is_probe", "is_doubtful"}


def candidate(worker_id: str, *, load_age_s: float = 0.0, **fields: Any) -> Candidate:
    """A worker; ``fields`` are its own or its load's."""
    own = {name: value for name, value in fields.items() if name in FIELDS}
    load = {name: value for name, value in fields.items() if name not in FIELDS}
    return Candidate(worker_id=worker_id, load=worker_load(**load), load_age_s=load_age_s, **own)


def demand(prompt_tokens: int = 16, need_tokens: int = 16) -> Demand:
    """A job of one block."""
    return Demand(prompt_tokens=prompt_tokens, need_tokens=need_tokens)


def picked(
    *candidates: Candidate, job: Demand | None = None, exclude: tuple[str, ...] = (), seed: int = 0
) -> str | None:
    """The worker chosen for ``job``."""
    choice = pick(candidates, job or demand(), exclude=exclude, rng=random.Random(seed))
    return choice.worker.worker_id if choice else None


def predicted(worker: Candidate, job: Demand | None = None) -> float:
    """Seconds to the first token, where nobody has measured anything."""
    return predicted_ttft_s(worker, job or demand(), best_rate=10_000.0)


def test_the_worker_with_the_shorter_backlog_is_chosen() -> None:
    """Tokens are counted, not requests."""
    long_prefill = candidate("a", pending_prefill_tokens=30_000, running_requests=1)
    many_requests = candidate("b", running_requests=50)
    assert "b" == picked(long_prefill, many_requests)


def test_a_backlog_counts_by_the_time_that_it_takes() -> None:
    """A fast worker may have the longer one."""
    fast = candidate("a", pending_prefill_tokens=5000, prefill_tokens_per_s=20_000.0)
    slow = candidate("b", pending_prefill_tokens=3000, prefill_tokens_per_s=2_000.0)
    assert "a" == picked(fast, slow)


def test_an_idle_worker_is_taken_for_the_equal_of_the_best() -> None:
    """Short prompts show a low rate on any machine; who is given nothing else could never show a better one."""
    short_prompts = candidate("a", prefill_tokens_per_s=1_000.0)
    proven = candidate("b", prefill_tokens_per_s=40_000.0, in_flight=1)
    assert 40_000.0 == best_prefill_rate([short_prompts, proven])
    assert "a" == picked(short_prompts, proven, job=demand(prompt_tokens=1500, need_tokens=1600))


def test_blocks_that_are_promised_are_not_free() -> None:
    """A worker whose free blocks are all promised has no room."""
    assert "b" == picked(candidate("a", reserved_blocks=100), candidate("b", free_blocks=20))


def test_work_sent_since_the_report_counts() -> None:
    """A burst within one report interval is spread."""
    assert "b" == picked(candidate("a", unseen_blocks=99), candidate("b", free_blocks=60))
    assert "b" == picked(candidate("a", unseen_prefill_tokens=2000), candidate("b", pending_prefill_tokens=500))


def test_what_a_worker_holds_of_the_prompt_is_a_discount() -> None:
    """It goes elsewhere as soon as waiting there takes longer than computing the prefix anew."""
    job = demand(prompt_tokens=1500, need_tokens=1600)
    holder = candidate("a", cached_tokens=1400, pending_prefill_tokens=1000)
    assert "a" == picked(holder, candidate("b"), job=job)
    busy = candidate("a", cached_tokens=1400, pending_prefill_tokens=3000)
    assert "b" == picked(busy, candidate("b"), job=job)


def test_a_report_that_is_overdue_counts_against_its_worker() -> None:
    """It may have stood still for all that time; reports within the second say nothing new."""
    assert predicted(candidate("a")) == predicted(candidate("a", load_age_s=0.9))
    assert 0.5 == pytest.approx(predicted(candidate("a", load_age_s=1.5)) - predicted(candidate("a")))


def test_the_fuller_a_pool_the_worse() -> None:
    """Long before it is full, and without limit to the order."""
    waits = [predicted(candidate("a", free_blocks=free)) for free in (100, 80, 50, 20, 4, 0)]
    assert sorted(waits) == waits
    assert len(set(waits)) == len(waits)


def test_among_equals_the_one_with_fewest_jobs_is_chosen() -> None:
    """Ties go by this gateway's own jobs."""
    assert "b" == picked(candidate("a", in_flight=2), candidate("b", in_flight=1))


def test_chance_decides_the_rest() -> None:
    """Gateways that see the same do not all choose the same."""
    choices = {picked(candidate("a"), candidate("b"), candidate("c"), seed=seed) for seed in range(50)}
    assert {"a", "b", "c"} == choices


def test_differences_smaller_than_the_figures_age_do_not_decide() -> None:
    """Among those the emptier of two is taken, and never one that is clearly worse."""
    pending = {"a": (0, 90), "b": (50, 95), "c": (5000, 100), "d": (100, 95)}
    fleet = [
        candidate(name, pending_prefill_tokens=tokens, free_blocks=free) for name, (tokens, free) in pending.items()
    ]
    counts = Counter(picked(*fleet, seed=seed) for seed in range(300))
    assert {"b", "d"} == set(counts)


def test_doubtful_workers_come_last_but_come() -> None:
    """What one job has met may meet another one, until the next report."""
    doubtful, busy = candidate("a", is_doubtful=True), candidate("b", free_blocks=30)
    assert "b" == picked(doubtful, busy)
    assert "a" == picked(doubtful, busy, exclude=("b",))


def test_a_weight_is_a_share_of_the_chances() -> None:
    """A worker of weight 0.1 that is the best one gets a tenth of the jobs."""
    fleet = (candidate("a", weight=0.1), candidate("b", pending_prefill_tokens=1000))
    counts = Counter(picked(*fleet, seed=seed) for seed in range(2000))
    assert 200 == pytest.approx(counts["a"], abs=60)


def test_a_worker_of_little_weight_is_chosen_when_it_is_alone() -> None:
    """Chance leaves nobody without a worker."""
    assert "a" == picked(candidate("a", weight=0.01))


def test_a_probe_goes_first() -> None:
    """Without a job nobody learns whether the worker has recovered."""
    assert "a" == picked(candidate("a", is_probe=True, pending_prefill_tokens=900), candidate("b"))


def test_a_worker_is_chosen_even_when_none_has_room() -> None:
    """Only the worker knows its ledger, so that only the worker refuses."""
    assert "a" == picked(candidate("a", free_blocks=0, unseen_blocks=500))


def test_a_job_larger_than_a_workers_pool_never_goes_there() -> None:
    """It would deadlock the engine's scheduler."""
    job = demand(need_tokens=1601)
    assert "b" == picked(candidate("a"), candidate("b", total_blocks=101, free_blocks=1), job=job)


def test_there_may_be_nobody_left() -> None:
    """None, not an error: what it means is for the caller to say."""
    assert picked(candidate("a"), exclude=("a",)) is None


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (0, 0)])
def test_tokens_fill_whole_blocks(tokens: int, blocks: int) -> None:
    """A block holds one request's tokens only."""
    assert blocks == candidate("a").blocks_for(tokens)
