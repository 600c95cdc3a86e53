"""Decisions as records: all that went in, and what came out, so that they can be explained and made again.

A record is a mapping of plain values, as JSON holds them. What a policy is given besides its inputs, chance, is a seed
and stands in the record too: made again from its record, a decision comes out the same, to the last bit.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gateway.policy.attempts import Retry
from gateway.policy.balancer import Choice, pick
from gateway.policy.candidate import Candidate
from gateway.policy.demand import Demand
from gateway.policy.load import WorkerLoad
from gateway.policy.outcomes import Outcome

Record = Mapping[str, Any]

# Not read by any policy that is replayed, and long.
_UNREAD = ("suspects", "instance_id")


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


def decide_again(record: Record) -> Any:
    """What the policy of this release makes of the record's inputs. Raises ``UnknownDecisionError``."""
    if record.get("kind") == "route":
        candidates = [
            Candidate(**candidate | {"load": WorkerLoad(**candidate["load"])}) for candidate in record["candidates"]
        ]
        demand = Demand(prompt_tokens=record["prompt_tokens"], need_tokens=record["need_tokens"])
        rng = random.Random(record["seed"])
        return _route_outcome(pick(candidates, demand, exclude=record["exclude"], rng=rng))
    if record.get("kind") == "retry":
        outcome = Outcome(record["outcome_of_attempt"])
        retry = Retry(outcome=outcome, can_move=record["can_move"], failures=record["failures"])
        return retry.is_allowed(has_budget=record["has_budget"])
    raise UnknownDecisionError(f"no decision of kind {record.get('kind')!r}")


def _route_outcome(choice: Choice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {"worker_id": choice.worker.worker_id, "predicted_ttft_s": dict(choice.predicted_ttft_s)}


def _plain(candidate: Candidate) -> dict[str, Any]:
    plain = asdict(candidate)
    for name in _UNREAD:
        del plain["load"][name]
    return plain
