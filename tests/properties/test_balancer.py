from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policy.balancer import Candidate, pick
from gateway.policy.load import WorkerLoad
from gateway.policy.unseen_blocks import Sent, UnseenBlocks

blocks = st.integers(0, 1000)

loads = st.builds(
    WorkerLoad,
    received_at=st.just(0.0),
    block_size=st.sampled_from([1, 16, 128]),
    total_blocks=blocks,
    free_blocks=blocks,
    reserved_blocks=blocks,
    running_requests=blocks,
    pending_prefill_tokens=blocks,
    prefill_tokens_per_s=st.just(0.0),
    decode_tokens_per_s=st.just(0.0),
    is_draining=st.booleans(),
)

fleets = st.lists(
    st.builds(
        Candidate,
        worker_id=st.sampled_from([f"w{number}" for number in range(12)]),
        load=loads,
        unseen_blocks=blocks,
        in_flight=blocks,
        is_doubtful=st.booleans(),
    ),
    unique_by=lambda candidate: candidate.worker_id,
)


@given(fleet=fleets, need_tokens=st.integers(1, 20_000), exclude=st.sets(st.integers(0, 11)), seed=st.integers())
def test_the_choice_keeps_every_rule(fleet: list[Candidate], need_tokens: int, exclude: set[int], seed: int) -> None:
    """Never an excluded worker or a pool too small, never nobody while somebody is left, never a worse worker."""
    excluded = {f"w{number}" for number in exclude}
    chosen = pick(fleet, need_tokens=need_tokens, exclude=excluded, rng=random.Random(seed))
    left = [
        candidate
        for candidate in fleet
        if candidate.worker_id not in excluded
        and need_tokens <= candidate.load.total_blocks * candidate.load.block_size
    ]
    if chosen is None:
        assert not left
        return
    assert chosen in left
    for other in left:
        ranks = [(c.is_doubtful, -c.room_blocks, c.in_flight) for c in (chosen, other)]
        assert ranks[0] <= ranks[1]


class UnseenBlocksMachine(RuleBasedStateMachine):
    """Against a list of every job ever sent."""

    def __init__(self) -> None:
        super().__init__()
        self.unseen = UnseenBlocks()
        self.reports = 0
        self.running: list[Sent] = []

    @rule(blocks=st.integers(0, 100))
    def send(self, blocks: int) -> None:
        self.running.append(self.unseen.send(blocks))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.unseen.end(self.running.pop(data.draw(st.integers(0, len(self.running) - 1))))

    @rule()
    def report(self) -> None:
        self.unseen.receive_report()
        self.reports += 1

    @invariant()
    def counts_running_jobs_until_the_second_report(self) -> None:
        expected = sum(sent.blocks for sent in self.running if sent.at_report > self.reports - 2)
        assert expected == self.unseen.blocks


TestUnseenBlocks = UnseenBlocksMachine.TestCase
