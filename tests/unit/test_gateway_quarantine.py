from __future__ import annotations

import pytest

from gateway.policy.quarantine import MEMORY_S, Quarantine, Sentence, Suspect
from tests.fakes.clock import ManualClock
from worker.suspects import SuspectBoard

POISON, OTHER = b"poison", b"other"
NOBODY: dict[int, float] = {}


def suspect(digest: bytes = POISON, instance_id: int = 1, remaining_s: float = MEMORY_S) -> Suspect:
    """Of a death just now."""
    return Suspect(digest=digest, instance_id=instance_id, remaining_s=remaining_s)


def faint(instance_id: int) -> Suspect:
    """Of an engine that died in the middle of the tokens."""
    return Suspect(digest=POISON, instance_id=instance_id, remaining_s=MEMORY_S, is_faint=True)


def silent(instance_id: int, *, is_faint: bool = False) -> Suspect:
    """Of a worker that went without a word, before a token or in the middle of them."""
    return Suspect(digest=POISON, instance_id=instance_id, remaining_s=MEMORY_S, is_silent=True, is_faint=is_faint)


def test_two_deaths_are_a_sentence_and_one_is_none() -> None:
    """It ends when the older death is forgotten."""
    quarantine = Quarantine()
    quarantine.add([suspect(instance_id=1)], 0.0)
    assert quarantine.sentence(POISON, NOBODY, 0.0) is None
    quarantine.add([suspect(instance_id=2)], 100.0)
    assert Sentence(deaths=2, remaining_s=MEMORY_S - 100.0) == quarantine.sentence(POISON, NOBODY, 100.0)
    assert quarantine.sentence(POISON, NOBODY, MEMORY_S) is None


def test_a_request_that_was_at_one_of_the_deaths_only_is_let_through() -> None:
    """Being there is no guilt."""
    quarantine = Quarantine()
    quarantine.add([suspect(instance_id=1), suspect(OTHER, instance_id=1), suspect(instance_id=2)], 0.0)
    assert quarantine.sentence(OTHER, NOBODY, 0.0) is None


def test_a_faint_suspicion_and_another_one_are_a_sentence() -> None:
    """Whoever killed the first worker in the middle of its tokens kills the second one before it has any."""
    quarantine = Quarantine()
    assert not quarantine.add([faint(1)], 0.0)
    assert quarantine.sentence(POISON, NOBODY, 0.0) is None
    assert quarantine.add([suspect(instance_id=2)], 1.0)
    assert Sentence(deaths=2, remaining_s=MEMORY_S - 1.0) == quarantine.sentence(POISON, NOBODY, 1.0)
    assert {1, 2} == {known.instance_id for known in quarantine.suspects(1.0)}


@pytest.mark.parametrize(
    "deaths",
    [
        [suspect(instance_id=1), suspect(instance_id=2)],
        [faint(1), suspect(instance_id=2)],
        [silent(1), suspect(instance_id=2)],
        [silent(1, is_faint=True), suspect(instance_id=2)],
        [faint(1), faint(2), faint(3)],
        [silent(1), silent(2), silent(3)],
        [silent(1, is_faint=True), silent(2), silent(3)],
        [silent(number, is_faint=True) for number in range(1, 7)],
    ],
)
def test_so_much_is_a_sentence_and_one_death_less_is_none(deaths: list[Suspect]) -> None:
    """Kills from outside follow one another, too, so that workers that go without a word say less."""
    quarantine = Quarantine()
    quarantine.add(deaths[:-1], 0.0)
    assert quarantine.sentence(POISON, NOBODY, 0.0) is None
    assert quarantine.add(deaths[-1:], 0.0)
    assert Sentence(deaths=len(deaths), remaining_s=MEMORY_S) == quarantine.sentence(POISON, NOBODY, 0.0)
    assert len(deaths) == len(quarantine.suspects(0.0))


def test_a_request_with_a_token_from_the_next_worker_is_suspected_less_of_the_death_before() -> None:
    """It shares two engines with a poison, and gets beyond the place at which the first one died."""
    quarantine = Quarantine()
    quarantine.add([suspect(instance_id=1), suspect(OTHER, instance_id=1)], 0.0)
    quarantine.pass_over(OTHER, 1.0)
    had_tokens = Suspect(digest=OTHER, instance_id=2, remaining_s=MEMORY_S, is_faint=True)
    quarantine.add([suspect(instance_id=2), had_tokens], 2.0)
    assert quarantine.sentence(POISON, NOBODY, 2.0) is not None
    assert quarantine.sentence(OTHER, NOBODY, 2.0) is None
    quarantine.add([suspect(OTHER, instance_id=3)], 3.0)
    assert Sentence(deaths=3, remaining_s=MEMORY_S - 1.0) == quarantine.sentence(OTHER, NOBODY, 3.0)


def test_faint_suspicions_displace_no_others() -> None:
    """A worker dies with thousands of streams on it."""
    quarantine = Quarantine()
    quarantine.add([suspect(instance_id=1), suspect(instance_id=2)], 0.0)
    for number in range(5000):
        quarantine.add([Suspect(digest=b"%d" % number, instance_id=3, remaining_s=MEMORY_S, is_faint=True)], 1.0)
    assert quarantine.sentence(POISON, NOBODY, 1.0) is not None
    assert 2 + 4096 == len(quarantine)


def test_one_death_seen_by_two_gateways_is_one() -> None:
    """The process that died has one name for all."""
    quarantine = Quarantine()
    assert quarantine.add([suspect()], 0.0)
    assert not quarantine.add([suspect()], 5.0)
    assert quarantine.sentence(POISON, NOBODY, 5.0) is None


def test_a_worker_that_reports_after_its_death_was_out_of_reach_only() -> None:
    """A partition is no poison."""
    quarantine = Quarantine()
    quarantine.add([suspect(instance_id=1), suspect(instance_id=2)], 10.0)
    assert quarantine.sentence(POISON, {1: 10.1}, 10.1) is not None
    assert quarantine.sentence(POISON, {1: 12.0}, 12.0) is None


def test_a_request_that_comes_to_a_good_end_is_cleared_of_what_was_before() -> None:
    """A common prompt is in flight whenever some worker dies."""
    quarantine = Quarantine()
    quarantine.add([suspect(instance_id=1)], 0.0)
    quarantine.clear(POISON, 1.0)
    quarantine.add([suspect(instance_id=2)], 2.0)
    assert quarantine.sentence(POISON, NOBODY, 2.0) is None
    assert [2] == [known.instance_id for known in quarantine.suspects(2.0)]


def test_passing_on_does_not_prolong_a_suspicion() -> None:
    """It would else go round for ever."""
    quarantine, clock = Quarantine(), ManualClock(0.0)
    board = SuspectBoard(clock)
    quarantine.add([suspect()], 0.0)
    for now in range(0, int(MEMORY_S), 60):
        clock.now_s = float(now)
        for known in quarantine.suspects(clock()):
            board.add(known.digest, known.instance_id, remaining_s=known.remaining_s)
        quarantine.add([suspect(s.digest, s.instance_id, s.remaining_s) for s in board.current()], clock())
    clock.now_s = MEMORY_S
    assert ([], []) == (quarantine.suspects(MEMORY_S), board.current())


def test_what_is_kept_is_bounded() -> None:
    """The oldest suspicions go first, on either side."""
    quarantine, board = Quarantine(), SuspectBoard(ManualClock())
    for number in range(2000):
        digest = number.to_bytes(2, "big")
        quarantine.add([suspect(digest)], 0.0)
        board.add(digest, 1, remaining_s=10.0)
    assert (1024, 64) == (len(quarantine), len(board.current()))
    assert (1999).to_bytes(2, "big") == board.current()[-1].digest


@pytest.mark.parametrize(("digest", "remaining_s"), [(b"", 1.0), (b"x" * 33, 1.0), (b"x", 0.0)])
def test_a_worker_keeps_nothing_that_is_no_suspicion(digest: bytes, remaining_s: float) -> None:
    """What it keeps goes into every report."""
    board = SuspectBoard(ManualClock())
    board.add(digest, 1, remaining_s=remaining_s)
    assert [] == board.current()
