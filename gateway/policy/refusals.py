"""What a request is told that did not get to a worker: which bound it met, and what would have passed.

Every number of a message stands in the metadata, too. Tokens are those of KV cache: prompt and expected output.
"""

from __future__ import annotations

import math

from gateway.errors import (
    AdmissionQueueFullError,
    DeadlineTooShortError,
    EvictedError,
    GatewayError,
    KvExhaustedError,
    QuotaExceededError,
    WaitTooLongError,
)
from gateway.policy.quota import QuotaRefusal
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Bound, Refusal


def refused(refusal: Refusal, waiter: Waiter, supply: Supply, *, queue_bytes: int) -> GatewayError:
    """It was not let in. ``queue_bytes`` are those that wait."""
    if refusal.bound is Bound.QUEUE_BYTES:
        return AdmissionQueueFullError(
            f"requests of {queue_bytes} bytes wait for workers; {waiter.size_bytes} more do not fit",
            metadata={
                "limit": refusal.bound.value,
                "waiting_bytes": str(queue_bytes),
                "request_bytes": str(waiter.size_bytes),
            },
            retry_after_s=refusal.retry_after_s,
        )
    first_token_s = waiter.deadline_at - waiter.leaves_at
    if refusal.bound is Bound.DEADLINE and not refusal.allowed_wait_s and not refusal.predicted_wait_s:
        remaining_s = max(0.0, waiter.deadline_at - waiter.arrived_at)
        return DeadlineTooShortError(
            f"{_ms(remaining_s)} ms are left, and the first token takes about {_ms(first_token_s)} ms",
            metadata={"remaining_ms": _ms(remaining_s), "passing_deadline_ms": _ms(first_token_s)},
        )
    wait_s = refusal.predicted_wait_s or 0.0
    metadata = {
        "limit": refusal.bound.value,
        "predicted_wait_ms": _ms(wait_s),
        "allowed_wait_ms": _ms(refusal.allowed_wait_s),
        **_tokens(waiter, supply),
    }
    if refusal.bound is Bound.DEADLINE:
        metadata["passing_deadline_ms"] = _ms(refusal.passing_wait_s + first_token_s)
    return WaitTooLongError(
        f"the request would wait {metadata['predicted_wait_ms']} ms for a worker; its {refusal.bound.value} allows"
        f" {metadata['allowed_wait_ms']} ms",
        metadata=metadata,
        retry_after_s=refusal.retry_after_s,
    )


def evicted(waiter: Waiter, bound: Bound, *, retry_after_s: float) -> GatewayError:
    """It had to go for a more critical one, or for one of a tenant that holds less, since ``bound`` was met."""
    return EvictedError(
        "another request took its place in the queue",
        metadata={"limit": bound.value, "request_bytes": str(waiter.size_bytes)},
        retry_after_s=retry_after_s,
    )


def waited_in_vain(waiter: Waiter, supply: Supply, bound: Bound, *, now: float, retry_after_s: float) -> GatewayError:
    """It has waited for as long as ``bound`` let it."""
    waited_ms = _ms(now - waiter.arrived_at)
    return KvExhaustedError(
        f"no worker had KV blocks for the request within {waited_ms} ms",
        metadata={"limit": bound.value, "waited_ms": waited_ms, **_tokens(waiter, supply)},
        retry_after_s=retry_after_s,
    )


def over_quota(refusal: QuotaRefusal, tenant: str) -> GatewayError:
    """Its tenant has used up what it may have."""
    unit = refusal.limit.removesuffix("_per_minute")
    per_minute = math.floor(refusal.per_minute)
    return QuotaExceededError(
        f"tenant {tenant!r} may use {per_minute} {unit} per minute; {refusal.needed} are needed, and {refusal.passing}"
        " are left",
        quota_subject=f"tenant:{tenant}/{refusal.limit}",
        metadata={
            "limit": refusal.limit,
            "tenant": tenant,
            "per_minute": str(per_minute),
            f"needed_{unit}": str(refusal.needed),
            f"passing_{unit}": str(refusal.passing),
        },
        retry_after_s=refusal.retry_after_s,
    )


def _tokens(waiter: Waiter, supply: Supply) -> dict[str, str]:
    return {"needed_tokens": str(waiter.tokens), "free_tokens": str(supply.free_tokens)}


def _ms(seconds: float) -> str:
    return str(max(0, math.ceil(seconds * 1000)))
