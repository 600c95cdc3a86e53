from __future__ import annotations

import pytest

from tests.fakes.clock import ManualClock
from tests.fakes.feeds import wide_feed
from worker.drain import Drain
from worker.ledger import Capacity, Ledger
from worker.output_lengths import OutputLengths
from worker.waiting_board import GatewayQueue, WaitingBoard


def test_only_the_time_counts_in_which_the_ledger_is_full() -> None:
    """Half of the time there is room, and what comes free then tells nothing."""
    clock = ManualClock()
    drain = Drain(clock)
    for second in range(40):
        for _ in range(10):
            clock.advance(0.1)
            drain.set_full(bool(second % 2))
            drain.release(7.0 if second % 2 else 1.0)

    assert 70.0 == pytest.approx(drain.per_s, rel=0.25)


def test_a_drain_that_was_hardly_seen_is_not_known() -> None:
    """Of seven releases no rate is told."""
    clock = ManualClock()
    drain = Drain(clock)
    for _ in range(7):
        drain.set_full(True)
        clock.advance(0.1)
        drain.release(1.0)

    assert 0.0 == drain.per_s


def test_a_quiet_hour_changes_nothing() -> None:
    """What is known of busy times is still the best guess for the next one."""
    clock = ManualClock()
    drain = Drain(clock)
    for _ in range(20):
        drain.set_full(True)
        clock.advance(0.1)
        drain.release(5.0)
    before = drain.per_s

    drain.set_full(False)
    clock.advance(3_600.0)
    drain.release(100.0)

    assert before == pytest.approx(drain.per_s, rel=0.2)


def test_the_ledger_knows_its_drain() -> None:
    """Requests of four blocks in a pool of eight, one of which ends every second."""
    clock = ManualClock()
    ledger = Ledger(
        Capacity(total_blocks=8, block_size=16, max_running_requests=8), OutputLengths(quantile=0.7), wide_feed(), clock
    )
    running = [ledger.admit(tenant="", prompt_tokens=32, max_output_tokens=32) for _ in range(2)]
    for _ in range(20):
        clock.advance(1.0)
        ledger.release(running.pop(0), is_complete=False)
        running.append(ledger.admit(tenant="", prompt_tokens=32, max_output_tokens=32))
        assert ledger.is_full

    assert 0.0 < ledger.drained_blocks_per_s


def word(gateway_id: int, waiting_tokens: int) -> GatewayQueue:
    """What a gateway tells."""
    return GatewayQueue(
        gateway_id=gateway_id,
        waiting_tokens=waiting_tokens,
        first_criticality=2,
        is_first_above_share=False,
        first_wait_s=0.5,
        age_s=0.0,
    )


def test_the_board_has_the_latest_word_of_each_gateway() -> None:
    """With its age."""
    clock = ManualClock()
    board = WaitingBoard(clock)
    board.tell(word(1, 100))
    board.tell(word(2, 200))
    clock.advance(0.5)
    board.tell(word(1, 300))
    clock.advance(0.25)

    told = {queue.gateway_id: (queue.waiting_tokens, queue.age_s) for queue in board.current()}
    assert {1: (300, 0.25), 2: (200, 0.75)} == told


def test_the_board_forgets() -> None:
    """Gateways that are silent for two seconds, and those beyond the bound that have been so for longest."""
    clock = ManualClock()
    board = WaitingBoard(clock)
    for gateway_id in range(70):
        board.tell(word(gateway_id, 1))
    assert list(range(6, 70)) == [queue.gateway_id for queue in board.current()]

    clock.advance(2.1)

    assert [] == board.current()
