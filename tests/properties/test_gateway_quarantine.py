from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.policy.quarantine import MEMORY_S, Quarantine, Suspect

digests = st.sampled_from([b"a", b"b", b"c"])
instances = st.integers(1, 6)
NOBODY: dict[int, float] = {}
POISON = b"poison"


class QuarantineMachine(RuleBasedStateMachine):
    """Two gateways that see some deaths each and pass on what they know, against the list of all that happened."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.gateways = (Quarantine(), Quarantine())
        self.deaths: dict[tuple[bytes, int], float] = {}  # when it was first seen
        self.strong: set[tuple[bytes, int]] = set()
        self.said: set[tuple[bytes, int]] = set()
        self.cleared: set[bytes] = set()

    @rule(seconds=st.floats(0, MEMORY_S / 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        digest=digests,
        instance_id=instances,
        gateway=st.integers(0, 1),
        is_silent=st.booleans(),
        is_faint=st.booleans(),
    )
    def die(self, digest: bytes, instance_id: int, gateway: int, *, is_silent: bool, is_faint: bool) -> None:
        suspect = Suspect(
            digest=digest, instance_id=instance_id, remaining_s=MEMORY_S, is_silent=is_silent, is_faint=is_faint
        )
        was_refused = self.gateways[gateway].sentence(digest, NOBODY, self.now) is not None
        self.gateways[gateway].add([suspect], self.now)
        assert not was_refused or self.gateways[gateway].sentence(digest, NOBODY, self.now) is not None
        self.strong |= set() if is_faint else {(digest, instance_id)}
        self.said |= set() if is_silent else {(digest, instance_id)}
        if self.deaths.get((digest, instance_id), -MEMORY_S) + MEMORY_S <= self.now:
            self.deaths[digest, instance_id] = self.now

    @rule(source=st.integers(0, 1))
    def pass_on(self, source: int) -> None:
        self.gateways[1 - source].add(self.gateways[source].suspects(self.now), self.now)

    @rule(digest=digests, gateway=st.integers(0, 1))
    def clear(self, digest: bytes, gateway: int) -> None:
        self.gateways[gateway].clear(digest, self.now)
        self.cleared.add(digest)

    @rule(digest=digests, gateway=st.integers(0, 1))
    def pass_over(self, digest: bytes, gateway: int) -> None:
        self.gateways[gateway].pass_over(digest, self.now)

    @invariant()
    def nobody_is_sentenced_without_two_deaths_that_are_remembered(self) -> None:
        for digest in (b"a", b"b", b"c"):
            recent = [at for (name, _), at in self.deaths.items() if name == digest and self.now < at + 2 * MEMORY_S]
            for gateway in self.gateways:
                sentence = gateway.sentence(digest, NOBODY, self.now)
                if sentence is not None:
                    assert 2 <= sentence.deaths <= len(recent)
                    assert 0 < sentence.remaining_s <= MEMORY_S + 1e-6

    @invariant()
    def what_says_less_has_to_be_said_more_often(self) -> None:
        for digest in (b"a", b"b", b"c"):
            is_said = digest in {name for name, _ in self.said}
            is_strong = digest in {name for name, _ in self.strong}
            least = {(True, True): 2, (True, False): 3, (False, True): 3, (False, False): 6}[is_said, is_strong]
            sentences = [gateway.sentence(digest, NOBODY, self.now) for gateway in self.gateways]
            assert all(sentence is None or least <= sentence.deaths for sentence in sentences)

    @invariant()
    def what_one_gateway_has_told_the_other_comes_to_the_same_there(self) -> None:
        for source in self.gateways:
            listener = Quarantine()
            listener.add(source.suspects(self.now), self.now)
            for digest in (b"a", b"b", b"c"):
                if source.sentence(digest, NOBODY, self.now) is not None and digest not in self.cleared:
                    assert listener.sentence(digest, NOBODY, self.now) is not None

    @invariant()
    def what_is_passed_on_has_an_end(self) -> None:
        for gateway in self.gateways:
            assert all(0 < suspect.remaining_s <= MEMORY_S for suspect in gateway.suspects(self.now))


TestQuarantine = QuarantineMachine.TestCase


@given(
    rng=st.randoms(use_true_random=False),
    streams=st.integers(0, 60),
    is_silent=st.booleans(),
    # How many of the others have a token from a worker before the poison takes it down.
    share=st.floats(0, 1),
)
def test_a_poison_is_refused_in_time_and_whoever_had_a_token_behind_the_first_death_goes_on(
    rng: random.Random, streams: int, share: float, *, is_silent: bool
) -> None:
    """It takes two engines, or three workers that go without a word; all others were on the same ones."""
    quarantine, others = Quarantine(), [b"%d" % number for number in range(streams)]
    proven: set[bytes] = set()  # with a token from a worker after the first
    deaths = 0
    while quarantine.sentence(POISON, NOBODY, float(deaths)) is None:
        begun = {digest for digest in others if rng.random() < share}
        for digest in begun:
            quarantine.pass_over(digest, deaths + 0.5)
        proven |= begun if deaths else set()
        deaths += 1
        for digest in (POISON, *others):
            is_faint = digest in begun
            one = Suspect(
                digest=digest, instance_id=deaths, remaining_s=MEMORY_S, is_silent=is_silent, is_faint=is_faint
            )
            quarantine.add([one], float(deaths))
    assert (3 if is_silent else 2) == deaths
    refused = {digest for digest in others if quarantine.sentence(digest, NOBODY, float(deaths)) is not None}
    assert set() == refused & proven


@given(has_begun=st.lists(st.booleans(), max_size=6))
def test_a_stream_survives_five_kills_from_outside_if_it_had_its_tokens_in_between(has_begun: list[bool]) -> None:
    """What it waited for in vain before its next token does not count against it; two in a row, of three, do."""
    quarantine, fruitless = Quarantine(), 0
    for number, begun in enumerate(has_begun):
        if begun:
            quarantine.pass_over(b"a", number + 0.5)
        fruitless = 0 if begun else fruitless + 1
        one = Suspect(digest=b"a", instance_id=number, remaining_s=MEMORY_S, is_silent=True, is_faint=begun)
        quarantine.add([one], number + 1.0)
        says = 4 * (number + 1 - fruitless) + 10 * fruitless
        assert (says >= 24) == (quarantine.sentence(b"a", {}, number + 1.0) is not None)
