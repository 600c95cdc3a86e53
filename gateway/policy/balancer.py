"""Chooses the worker for a job: the one with the most free KV blocks after what this gateway has just sent it.

It only puts workers in order. It never refuses a job for want of blocks: what a job will need is an estimate here, and
the worker alone knows its ledger. What is refused is a job that is larger than a worker's whole pool.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gateway.policy.load import WorkerLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker in rotation, as this gateway sees it at one instant.

    ``unseen_blocks`` are those that this gateway's jobs will take at most and that ``load`` cannot know yet;
    ``in_flight`` are all its jobs there. A ``is_doubtful`` worker has failed or refused a job since ``load``.
    """

    worker_id: str
    load: WorkerLoad
    unseen_blocks: int
    in_flight: int
    is_doubtful: bool

    @property
    def room_blocks(self) -> int:
        """Blocks that a further job would find. Negative when more was sent than is free."""
        return self.load.available_blocks - self.unseen_blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks of this worker that ``tokens`` fill."""
        return math.ceil(tokens / self.load.block_size)


def pick(
    candidates: Iterable[Candidate], *, need_tokens: int, exclude: Collection[str], rng: random.Random
) -> Candidate | None:
    """The best worker for a job of ``need_tokens`` (prompt and output), or None when there is none left to ask.

    Doubtful workers come last but are never left out: on its own opinion alone a gateway must not lose its whole fleet.
    Then most room counts, then fewest of this gateway's jobs, then chance, so that gateways do not move in step.
    """
    fitting = [
        candidate
        for candidate in candidates
        if candidate.worker_id not in exclude and candidate.blocks_for(need_tokens) <= candidate.load.total_blocks
    ]
    return min(
        fitting,
        key=lambda candidate: (candidate.is_doubtful, -candidate.room_blocks, candidate.in_flight, rng.random()),
        default=None,
    )
