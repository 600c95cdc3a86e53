"""Decisions as records: all that went in, and what came out, so that they can be explained and made again.

What a policy is given besides its inputs, chance, is a seed and stands in the record too: made again from its record, a
decision comes out the same, to the last bit. Those of a waiting line or a breaker depend on all that it was asked
before; its records tell all of that (``gateway.policy.recorded_line``, ``recorded_breaker``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gateway.errors import DeadlineTooShortError
from gateway.policy.attempts import Retry
from gateway.policy.balancer import Choice, pick
from gateway.policy.bucket import Level
from gateway.policy.candidate import Candidate
from gateway.policy.demand import Demand
from gateway.policy.load import WorkerLoad
from gateway.policy.outcomes import Outcome
from gateway.policy.output_budget import OutputDemand, output_budget
from gateway.policy.quota import QuotaRefusal, judge_quota
from gateway.policy.record import Record
from gateway.policy.recorded_breaker import ReplayedBreakers
from gateway.policy.recorded_limit import limit_again
from gateway.policy.replayed_line import ReplayedLines

# Not read by any policy that is replayed, and long.
_UNREAD = ("suspects", "instance_id", "gateway_queues", "tenant_blocks")


class UnknownDecisionError(Exception):
    """The record is of a kind that this release does not make."""


def route_record(
    candidates: Sequence[Candidate], demand: Demand, *, exclude: Collection[str], seed: int, choice: Choice | None
) -> Record:
    """A worker was chosen, or none, for a job of ``demand``."""
    return {
        "kind": "route",
        "seed": seed,
        "prompt_tokens": demand.prompt_tokens,
        "need_tokens": demand.need_tokens,
        "exclude": sorted(exclude),
        "candidates": [_plain(candidate) for candidate in candidates],
        "outcome": _route_outcome(choice),
    }


def retry_record(retry: Retry, *, has_budget: bool) -> Record:
    """After an attempt that ended so, another worker may be asked, or not."""
    return {
        "kind": "retry",
        "outcome_of_attempt": retry.outcome.value,
        "can_move": retry.can_move,
        "failures": retry.failures,
        "has_budget": has_budget,
        "outcome": retry.is_allowed(has_budget=has_budget),
    }


def quota_record(levels: Mapping[str, Level], *, tokens: int, refusal: QuotaRefusal | None) -> Record:
    """A request of ``tokens`` was let in by its tenant's quotas, or refused."""
    return {
        "kind": "quota",
        "levels": {limit: asdict(level) for limit, level in levels.items()},
        "tokens": tokens,
        "outcome": None if refusal is None else asdict(refusal),
    }


def budget_record(demand: OutputDemand, load: WorkerLoad, *, remaining_s: float) -> Record:
    """A deadline leaves time for so much output, or for none."""
    record = {
        "kind": "budget",
        "demand": asdict(demand),
        "load": _plain_load(asdict(load)),
        "remaining_s": remaining_s,
    }
    return record | {"outcome": _budget_again(record)}


class Again:
    """Makes the decisions of a log again, in their order."""

    def __init__(self) -> None:
        self._lines, self._breakers = ReplayedLines(), ReplayedBreakers()
        self._policies: dict[str, Callable[[Record], Any]] = {
            "route": _route_again,
            "retry": _retry_again,
            "quota": _quota_again,
            "budget": _budget_again,
            "queue": self._lines.answer,
            "breaker": self._breakers.answer,
            "limit": limit_again,
        }

    def decide(self, record: Record) -> Any:
        """What the policies of this release make of the record's inputs. Raises ``UnknownDecisionError``."""
        policy = self._policies.get(record["kind"])
        if policy is None:
            raise UnknownDecisionError(f"no decision of kind {record['kind']!r}")
        return policy(record)


def _route_again(record: Record) -> Any:
    candidates = [
        Candidate(**candidate | {"load": WorkerLoad(**candidate["load"])}) for candidate in record["candidates"]
    ]
    demand = Demand(prompt_tokens=record["prompt_tokens"], need_tokens=record["need_tokens"])
    rng = random.Random(record["seed"])
    return _route_outcome(pick(candidates, demand, exclude=record["exclude"], rng=rng))


def _retry_again(record: Record) -> Any:
    outcome = Outcome(record["outcome_of_attempt"])
    retry = Retry(outcome=outcome, can_move=record["can_move"], failures=record["failures"])
    return retry.is_allowed(has_budget=record["has_budget"])


def _quota_again(record: Record) -> Any:
    levels = {limit: Level(**level) for limit, level in record["levels"].items()}
    refusal = judge_quota(levels, tokens=record["tokens"])
    return None if refusal is None else asdict(refusal)


def _budget_again(record: Record) -> Any:
    demand, load = OutputDemand(**record["demand"]), WorkerLoad(**record["load"])
    try:
        return asdict(output_budget(demand, load, remaining_s=record["remaining_s"]))
    except DeadlineTooShortError as error:
        return {"refused": error.metadata}


def _route_outcome(choice: Choice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {"worker_id": choice.worker.worker_id, "predicted_ttft_s": dict(choice.predicted_ttft_s)}


def _plain(candidate: Candidate) -> dict[str, Any]:
    plain = asdict(candidate)
    return plain | {"load": _plain_load(plain["load"])}


def _plain_load(load: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in load.items() if name not in _UNREAD}
