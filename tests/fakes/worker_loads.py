"""The load of a worker, as the gateway's policies are given it."""

from __future__ import annotations

from typing import Any

from gateway.policy.load import WorkerLoad


def worker_load(**fields: Any) -> WorkerLoad:
    """An idle worker of 100 blocks of 16 tokens that has measured nothing; ``fields`` go over what stands here."""
    values = {
        "received_at": 0.0,
        "block_size": 16,
        "total_blocks": 100,
        "free_blocks": 100,
        "reserved_blocks": 0,
        "running_requests": 0,
        "pending_prefill_tokens": 0,
        "prefill_tokens_per_s": 0.0,
        "decode_tokens_per_s": 0.0,
        "is_draining": False,
    }
    return WorkerLoad(**values | fields)
