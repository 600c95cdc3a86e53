"""The load of one worker, as its latest report gave it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.elsewhere import GatewayQueue
from gateway.policy.quarantine import Suspect


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLoad:
    """``tidegate.worker.v1.LoadReport``, less what nobody here reads.

    ``received_at`` is in seconds by this process's monotonic clock. Rates are 0 until the worker has measured them.
    """

    received_at: float
    block_size: int
    total_blocks: int
    free_blocks: int  # held by no running request
    reserved_blocks: int  # promised to admitted requests, in use or not
    running_requests: int
    pending_prefill_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float  # of the whole batch
    is_draining: bool
    reclaimable_blocks: int = (
        0  # of the free ones, with the beginnings of prompts; 0 also where an engine does not tell
    )
    released_blocks_per_s: float = 0.0  # by ended requests, of late
    drained_blocks_per_s: float = 0.0  # by ended requests, while there was no room for a usual one; 0: not known
    expected_output_tokens: int = 0  # that the ledger reckons an average request with; 0: nothing learned, the maximum
    output_quantile: float = 0.0  # the share of outputs that it reserves enough for; 0: it does not tell
    # What would be admitted now, blocks aside; None: without bound.
    admissible_requests: int | None = None
    admissible_prompt_tokens: int | None = None
    engine_step_age_s: float = 0.0  # for so long the engine has had work and made no step
    instance_id: int = 0  # of the process; 0: it has none
    suspects: tuple[Suspect, ...] = ()
    gateway_queues: tuple[GatewayQueue, ...] = ()
    tenant_blocks: tuple[tuple[str, int], ...] = ()  # reserved, by tenant, those that hold most; empty where it is one
    sample_number: int = 0  # of the report, ascending

    @property
    def available_blocks(self) -> int:
        """Blocks that are neither in use nor promised."""
        return max(0, min(self.free_blocks, self.total_blocks - self.reserved_blocks))
