from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.policy.quarantine import MEMORY_S, Quarantine, Suspect

digests = st.sampled_from([b"a", b"b", b"c"])
instances = st.integers(1, 6)


class QuarantineMachine(RuleBasedStateMachine):
    """Two gateways that see some deaths each and pass on what they know, against the list of all that happened."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.gateways = (Quarantine(), Quarantine())
        self.deaths: dict[tuple[bytes, int], float] = {}  # when it was first seen
        self.strong: set[tuple[bytes, int]] = set()
        self.cleared: dict[bytes, float] = {}

    @rule(seconds=st.floats(0, MEMORY_S / 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(digest=digests, instance_id=instances, gateway=st.integers(0, 1), is_faint=st.booleans())
    def die(self, digest: bytes, instance_id: int, gateway: int, *, is_faint: bool) -> None:
        suspect = Suspect(digest=digest, instance_id=instance_id, remaining_s=MEMORY_S, is_faint=is_faint)
        self.gateways[gateway].add([suspect], self.now)
        self.strong |= set() if is_faint else {(digest, instance_id)}
        if self.deaths.get((digest, instance_id), -MEMORY_S) + MEMORY_S <= self.now:
            self.deaths[digest, instance_id] = self.now

    @rule(source=st.integers(0, 1))
    def pass_on(self, source: int) -> None:
        self.gateways[1 - source].add(self.gateways[source].suspects(self.now), self.now)

    @rule(digest=digests, gateway=st.integers(0, 1))
    def clear(self, digest: bytes, gateway: int) -> None:
        self.gateways[gateway].clear(digest, self.now)
        self.cleared[digest] = self.now

    @invariant()
    def nobody_is_sentenced_without_two_deaths_that_are_remembered(self) -> None:
        for digest in (b"a", b"b", b"c"):
            recent = [at for (name, _), at in self.deaths.items() if name == digest and self.now < at + 2 * MEMORY_S]
            for gateway in self.gateways:
                sentence = gateway.sentence(digest, {}, self.now)
                if sentence is not None:
                    assert 2 <= sentence.deaths <= len(recent)
                    assert 0 < sentence.remaining_s <= MEMORY_S + 1e-6

    @invariant()
    def faint_suspicions_alone_are_no_sentence_before_there_are_four(self) -> None:
        for digest in (b"a", b"b", b"c"):
            if digest not in {name for name, _ in self.strong}:
                sentences = [gateway.sentence(digest, {}, self.now) for gateway in self.gateways]
                assert all(sentence is None or 4 <= sentence.deaths for sentence in sentences)

    @invariant()
    def what_one_gateway_has_told_the_other_comes_to_the_same_there(self) -> None:
        for source in self.gateways:
            listener = Quarantine()
            listener.add(source.suspects(self.now), self.now)
            for digest in (b"a", b"b", b"c"):
                if source.sentence(digest, {}, self.now) is not None and digest not in self.cleared:
                    assert listener.sentence(digest, {}, self.now) is not None

    @invariant()
    def what_is_passed_on_has_an_end(self) -> None:
        for gateway in self.gateways:
            assert all(0 < suspect.remaining_s <= MEMORY_S for suspect in gateway.suspects(self.now))


TestQuarantine = QuarantineMachine.TestCase
