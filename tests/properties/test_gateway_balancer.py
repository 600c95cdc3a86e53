from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policy.balancer import pick
from gateway.policy.candidate import Candidate
from gateway.policy.demand import Demand
from gateway.policy.load import WorkerLoad
from gateway.policy.unseen_work import Sent, UnseenWork

counts = st.integers(0, 1000)
rates = st.floats(0, 1e5)

loads = st.builds(
    WorkerLoad,
    received_at=st.just(0.0),
    block_size=st.sampled_from([1, 16, 128]),
    total_blocks=counts,
    free_blocks=counts,
    reserved_blocks=counts,
    running_requests=counts,
    pending_prefill_tokens=counts,
    prefill_tokens_per_s=rates,
    decode_tokens_per_s=rates,
    is_draining=st.booleans(),
)

fleets = st.lists(
    st.builds(
        Candidate,
        worker_id=st.sampled_from([f"w{number}" for number in range(12)]),
        load=loads,
        load_age_s=st.floats(0, 10),
        unseen_blocks=counts,
        unseen_prefill_tokens=counts,
        in_flight=counts,
        cached_tokens=counts,
        weight=st.floats(0.01, 1),
        is_probe=st.booleans(),
        is_doubtful=st.booleans(),
    ),
    unique_by=lambda candidate: candidate.worker_id,
)

demands = st.builds(
    lambda prompt, output: Demand(prompt_tokens=prompt, need_tokens=prompt + output),
    st.integers(1, 10_000),
    st.integers(1, 10_000),
)


@given(fleet=fleets, demand=demands, exclude=st.sets(st.integers(0, 11)), seed=st.integers())
def test_the_choice_keeps_every_rule(fleet: list[Candidate], demand: Demand, exclude: set[int], seed: int) -> None:
    """Never an excluded worker or a pool too small, never nobody while somebody is left, probes first."""
    excluded = {f"w{number}" for number in exclude}
    choice = pick(fleet, demand, exclude=excluded, rng=random.Random(seed))
    left = [
        candidate
        for candidate in fleet
        if candidate.worker_id not in excluded
        and demand.need_tokens <= candidate.load.total_blocks * candidate.load.block_size
    ]
    if choice is None:
        assert not left
        return
    assert choice.worker in left
    assert choice.worker.is_probe or not any(candidate.is_probe for candidate in left)
    best = min(choice.predicted_ttft_s.values())
    assert choice.predicted_ttft_s[choice.worker.worker_id] <= best + 0.02
    assert choice == pick(fleet, demand, exclude=excluded, rng=random.Random(seed))


class UnseenWorkMachine(RuleBasedStateMachine):
    """Against a list of every job ever sent; reports and admissions are heard of late."""

    def __init__(self) -> None:
        super().__init__()
        self.unseen = UnseenWork()
        self.made = 0  # reports, by the worker
        self.read = 0  # of these, by the gateway
        self.running: list[Sent] = []
        self.admitted: dict[Sent, int] = {}  # jobs, and the reports made before
        self.told: set[Sent] = set()  # those of whose admission the gateway has heard

    @rule(blocks=st.integers(0, 100), tokens=st.integers(0, 5000))
    def send(self, blocks: int, tokens: int) -> None:
        self.running.append(self.unseen.send(blocks=blocks, prefill_tokens=tokens))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.unseen.end(self.running.pop(data.draw(st.integers(0, len(self.running) - 1))))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        self.admitted.setdefault(data.draw(st.sampled_from(self.running)), self.made)

    @precondition(lambda self: self.admitted.keys() - self.told)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from([sent for sent in self.admitted if sent not in self.told]))
        self.told.add(sent)
        self.unseen.admit(sent, self.admitted[sent])

    @rule()
    def make_report(self) -> None:
        self.made += 1

    @precondition(lambda self: self.read < self.made)
    @rule()
    def read_report(self) -> None:
        self.read += 1
        self.unseen.receive_report(self.read)

    @invariant()
    def counts_running_jobs_until_a_report_has_seen_them(self) -> None:
        unseen = [sent for sent in self.running if sent not in self.told or self.admitted[sent] >= self.read]
        assert len(unseen) == self.unseen.requests
        assert sum(sent.blocks for sent in unseen) == self.unseen.blocks
        assert sum(sent.prefill_tokens for sent in unseen) == self.unseen.prefill_tokens


TestUnseenWork = UnseenWorkMachine.TestCase
