"""A worker as it stands for election."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.load import WorkerLoad


@dataclass(slots=True, kw_only=True, init=False)
class Candidate:
    """A worker in rotation, as this gateway sees it at one instant.

    ``unseen_...`` is work of this gateway's jobs that ``load`` cannot know yet; ``in_flight`` are all its jobs there.
    ``cached_tokens`` of the job's prompt are expected in the worker's cache. ``weight`` is the chance, up to 1, with
    which it takes part; ``is_probe``: a job would be the test of whether it has recovered; ``is_doubtful``: it has
    refused or failed a job since ``load``.
    """

    worker_id: str
    load: WorkerLoad
    load_age_s: float
    unseen_blocks: int = 0
    unseen_prefill_tokens: int = 0
    in_flight: int = 0
    cached_tokens: int = 0
    weight: float = 1.0
    is_probe: bool = False
    is_doubtful: bool = False

    def __init__(  # noqa: PLR0913 - its fields
        self,
        *,
        worker_id: str,
        load: WorkerLoad,
        load_age_s: float,
        unseen_blocks: int = 0,
        unseen_prefill_tokens: int = 0,
        in_flight: int = 0,
        cached_tokens: int = 0,
        weight: float = 1.0,
        is_probe: bool = False,
        is_doubtful: bool = False,
    ) -> None:
        self.worker_id = worker_id
        self.load = load
        self.load_age_s = load_age_s
        self.unseen_blocks = unseen_blocks
        self.unseen_prefill_tokens = unseen_prefill_tokens
        self.in_flight = in_flight
        self.cached_tokens = cached_tokens
        self.weight = weight
        self.is_probe = is_probe
        self.is_doubtful = is_doubtful

    @property
    def room_blocks(self) -> int:
        """Blocks that a further job would find. Negative when more was sent than is free."""
        return self.load.available_blocks - self.unseen_blocks

    @property
    def used_share(self) -> float:
        """The part of its pool that is in use, promised or on its way. Above 1 when more was sent than is free."""
        return 1 - self.room_blocks / max(1, self.load.total_blocks)

    def blocks_for(self, tokens: int) -> int:
        """Blocks of this worker that ``tokens`` fill."""
        return -(-tokens // self.load.block_size)
