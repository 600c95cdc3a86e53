"""Chooses the worker for a job: one of those with the shortest predicted time to its first token.

It only chooses among those it is given. It never refuses a job for want of blocks: what a job will need is an estimate
here, and the worker alone knows its ledger. What is left out is a worker whose whole pool is smaller than the job.

Three steps. Each worker takes part with a chance of its ``weight``, so that one that has just come, come back or grown
slow gets no more than that share. Of these, workers stay whose prediction is as good as the best one, as far as figures
of this age can tell. Of these, two are drawn and the emptier one is taken: gateways that see the same do not all choose
the same.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.policy.candidate import Candidate
from gateway.policy.demand import Demand
from gateway.policy.prediction import best_prefill_rate, predicted_ttft_s

# Two workers whose predictions differ by less are equally good: a report is up to so old when the next one is due, and
# every gateway may have sent a job since.
_TOLERANCE_S = 0.02
_CHOICES = 2


@dataclass(slots=True, kw_only=True, init=False)
class Choice:
    """The worker chosen, with the prediction for each worker that took part, in seconds to the first token."""

    worker: Candidate
    predicted_ttft_s: Mapping[str, float]

    def __init__(self, *, worker: Candidate, predicted_ttft_s: Mapping[str, float]) -> None:
        self.worker = worker
        self.predicted_ttft_s = predicted_ttft_s


def pick(
    candidates: Iterable[Candidate], demand: Demand, *, exclude: Collection[str], rng: random.Random
) -> Choice | None:
    """The worker for a job of ``demand``, or None when there is none left to ask.

    A worker on probation is taken first: only a job can tell whether it has recovered, and the owner of its breaker
    bounds how many may try.
    """
    fitting = [
        candidate
        for candidate in candidates
        if candidate.worker_id not in exclude
        and candidate.blocks_for(demand.need_tokens) <= candidate.load.total_blocks
    ]
    if not fitting:
        return None
    if len(fitting) == 1:  # nothing to choose
        only = fitting[0]
        first_token_s = predicted_ttft_s(only, demand, best_rate=best_prefill_rate(fitting))
        return Choice(worker=only, predicted_ttft_s={only.worker_id: first_token_s})
    taking_part = [candidate for candidate in fitting if candidate.is_probe] or _drawn_by_weight(fitting, rng)
    rate = best_prefill_rate(fitting)
    predicted = {candidate.worker_id: predicted_ttft_s(candidate, demand, best_rate=rate) for candidate in taking_part}
    limit = min(predicted.values()) + _TOLERANCE_S
    near = [candidate for candidate in taking_part if predicted[candidate.worker_id] <= limit]
    drawn = rng.sample(near, _CHOICES) if len(near) > _CHOICES else near
    chosen = min(
        drawn, key=lambda candidate: (candidate.is_doubtful, candidate.used_share, candidate.in_flight, rng.random())
    )
    return Choice(worker=chosen, predicted_ttft_s=predicted)


def _drawn_by_weight(candidates: Sequence[Candidate], rng: random.Random) -> Sequence[Candidate]:
    """Those that take part; all of them when chance would leave nobody."""
    drawn = [candidate for candidate in candidates if candidate.weight >= 1 or rng.random() < candidate.weight]
    return drawn or candidates
