from __future__ import annotations

from tests.fakes.feeds import wide_feed
from worker.ledger import Capacity, Ledger, Reservation
from worker.output_lengths import OutputLengths
from worker.prefix import shareable_names

_PROMPT = tuple(range(161))  # ten full blocks of 16, and one token to compute


def _ledger() -> Ledger:
    capacity = Capacity(total_blocks=100, block_size=16, max_running_requests=8)
    return Ledger(capacity, OutputLengths(quantile=0.7), wide_feed())


def _admit(ledger: Ledger) -> Reservation:
    names = shareable_names(_PROMPT, 16)
    return ledger.admit(tenant="", prompt_tokens=len(_PROMPT), max_output_tokens=15, prompt_names=names)


def test_blocks_in_common_are_reserved_once() -> None:
    """Once the engine has shown that it shares, the second request of a prompt costs what is its own."""
    ledger = _ledger()
    for cached_tokens in (0, 160):
        ledger.begin(_admit(ledger), cached_tokens=cached_tokens)
    assert 12 == ledger.reserved_blocks  # 10 in common, and one for each

    _admit(ledger)

    assert 13 == ledger.reserved_blocks


def test_shared_blocks_stay_reserved_for_who_is_left() -> None:
    """The end of the first holder frees its own blocks alone."""
    ledger = _ledger()
    first, second = _admit(ledger), _admit(ledger)
    ledger.begin(first, cached_tokens=0)
    ledger.begin(second, cached_tokens=160)

    ledger.release(first, is_complete=True)

    assert 11 == ledger.reserved_blocks


def test_nothing_is_shared_before_the_engine_has_shown_that_it_shares() -> None:
    """A prompt that is inside already is reserved in full a second time until a cache hit has been seen."""
    ledger = _ledger()
    ledger.begin(_admit(ledger), cached_tokens=0)

    _admit(ledger)

    assert 22 == ledger.reserved_blocks


def test_missed_cache_takes_the_assumption_back() -> None:
    """A request that was let share, and computed its prompt after all, is booked with all that it holds."""
    ledger = _ledger()
    for cached_tokens in (0, 160):
        ledger.begin(_admit(ledger), cached_tokens=cached_tokens)
    unlucky = _admit(ledger)

    ledger.begin(unlucky, cached_tokens=0)

    assert 23 == ledger.reserved_blocks
    _admit(ledger)
    assert 34 == ledger.reserved_blocks  # and the next one is not let share


def test_requests_that_came_together_say_nothing_of_the_cache() -> None:
    """Two requests that computed the same prompt in one step do not shake the trust in the cache."""
    ledger = _ledger()
    together = [_admit(ledger) for _ in range(2)]
    for reservation in together:
        ledger.begin(reservation, cached_tokens=0)
    ledger.begin(_admit(ledger), cached_tokens=160)
    assert 23 == ledger.reserved_blocks

    _admit(ledger)

    assert 24 == ledger.reserved_blocks
