from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.policy.elsewhere import Elsewhere, GatewayQueue
from gateway.policy.supply import WorkerRoom, supply_of
from gateway.policy.turn import Turn
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from tests.fakes.worker_loads import worker_load


def first(*, came_at: float, rank: int = 1, is_above_share: bool = False) -> Waiter:
    """The first in line of this gateway."""
    return Waiter(
        tenant="a",
        rank=rank,
        tokens=100,
        prompt_tokens=50,
        size_bytes=1,
        arrived_at=came_at,
        deadline_at=600.0,
        leaves_at=600.0,
        is_above_share=is_above_share,
    )


def queue(gateway_id: int, *, tokens: int = 100, told_at: float = 0.0, **first: float) -> GatewayQueue:
    """What another gateway told; ``first`` goes over what stands here of its first in line."""
    return GatewayQueue(
        gateway_id=gateway_id,
        waiting_tokens=tokens,
        first_rank=int(first.get("rank", 1)),
        is_first_above_share=bool(first.get("is_above_share", False)),
        first_came_at=first.get("came_at", 0.0),
        told_at=told_at,
    )


def test_who_came_first_goes_at_once() -> None:
    """However many wait elsewhere."""
    assert Turn().may_go(first(came_at=1.0), [queue(1, came_at=1.1), queue(2, came_at=1.2)], now=2.0)


def test_others_go_first_that_came_before() -> None:
    """Each for a moment; then the room is there for whoever takes it."""
    turn, elsewhere = Turn(), [queue(1, came_at=0.1), queue(2, came_at=0.2), queue(3, came_at=5.0)]

    asked = [turn.may_go(first(came_at=1.0), elsewhere, now=2.0 + step / 100) for step in range(6)]

    assert [False] * 5 + [True] == asked


def test_the_more_critical_goes_first_whenever_it_came() -> None:
    """As it does in a gateway of its own."""
    assert Turn().may_go(first(came_at=1.0, rank=0), [queue(1, came_at=0.1, rank=1)], now=2.0)
    assert not Turn().may_go(first(came_at=0.1, rank=3), [queue(1, came_at=1.0, rank=1)], now=2.0)


def test_who_has_more_than_its_share_goes_behind_those_who_have_not() -> None:
    """Whenever it came."""
    greedy = first(came_at=0.1, is_above_share=True)

    assert not Turn().may_go(greedy, [queue(1, came_at=1.0)], now=2.0)
    assert Turn().may_go(greedy, [queue(1, came_at=1.0, is_above_share=True)], now=2.0)


def test_room_that_was_taken_begins_the_moment_anew() -> None:
    """It says when to ask again, as long as it has to be asked again."""
    turn, elsewhere = Turn(), [queue(1, came_at=0.1)]
    assert not turn.may_go(first(came_at=1.0), elsewhere, now=2.0)
    assert 2.025 == turn.ask_again_at
    turn.end()
    assert turn.ask_again_at is None
    assert not turn.may_go(first(came_at=1.0), elsewhere, now=3.0)
    assert turn.may_go(first(came_at=1.0), elsewhere, now=3.025)


def test_the_latest_word_of_each_other_gateway_counts() -> None:
    """Whichever worker it came from; what a gateway says of itself it knows better."""
    elsewhere = Elsewhere(gateway_id=7)
    elsewhere.hear([queue(1, tokens=100, told_at=1.0), queue(7, tokens=900, told_at=1.0)])
    elsewhere.hear([queue(1, tokens=300, told_at=2.0), queue(2, tokens=50, told_at=0.5)])
    elsewhere.hear([queue(1, tokens=200, told_at=1.5), queue(3, tokens=0, told_at=2.0)])

    assert {1: 300, 2: 50} == {one.gateway_id: one.waiting_tokens for one in elsewhere.queues(now=2.4)}
    assert [1] == [one.gateway_id for one in elsewhere.queues(now=2.6)]
    assert [1, 3] == [one.gateway_id for one in elsewhere.gateways(now=2.6)]


def room(**fields: object) -> WorkerRoom:
    """A worker to which nothing was sent of late."""
    load = worker_load(**fields)
    return WorkerRoom(load=load, unseen_blocks=0, unseen_requests=0, unseen_prefill_tokens=0, own_blocks=0)


def test_what_comes_free_is_shared_by_what_waits() -> None:
    """Half of what a gateway gets where as much waits elsewhere; a worker that was never full is the others' equal."""
    supply = supply_of([room(drained_blocks_per_s=10.0), room()], [queue(1, tokens=150), queue(2, tokens=50)])

    assert (320.0, 200) == (supply.tokens_per_s, supply.waiting_elsewhere_tokens)
    assert 0.5 == supply.share_of(200)


def test_what_is_asked_elsewhere_is_asked_of_all_gateways_together() -> None:
    """Also of those in which nothing waits."""
    first = replace(queue(1, tokens=0), tenant_demands=(("a", 10.0), ("b", 1.0)))
    second = replace(queue(2, tokens=90), tenant_demands=(("a", 5.0), ("", 2.0)), above_share_tokens=80)

    supply = supply_of([room()], [first, second])

    assert {"a": 15.0, "b": 1.0, "": 2.0} == supply.asked_elsewhere_per_s
    assert (90, 80) == (supply.waiting_elsewhere_tokens, supply.above_share_elsewhere_tokens)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"admissible_requests": 0}, (0, 0, None)),
        ({"admissible_requests": 3, "admissible_prompt_tokens": 40}, (1_600, 3, 40)),
        ({}, (1_600, None, None)),
    ],
)
def test_a_worker_can_be_full_in_three_ways(
    fields: dict[str, int], expected: tuple[int, int | None, int | None]
) -> None:
    """Of blocks, of requests, and of prompts; without a bound there is none."""
    supply: Supply = supply_of([room(**fields)], [])

    assert expected == (supply.free_tokens, supply.free_requests, supply.free_prompt_tokens)
