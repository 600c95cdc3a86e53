"""Whether a worker stands still, by its own reports: a busy engine must not be taken for a hung one."""

from __future__ import annotations

from gateway.policy.load import WorkerLoad

# Steps take milliseconds, and up to a second or two where kernels are compiled or captured.
_STALL_S = 2.0
# One step may compute all prompts that are pending. Rates are measured on other prompts than these, and a long prompt
# takes more time for each token than a short one.
_PREFILL_MARGIN = 4.0
# Reports come at least once a second.
SILENT_AFTER_S = 2.0


def is_stalled(load: WorkerLoad) -> bool:
    """Whether the engine has had work, and made no step, for longer than its pending prompts explain.

    A worker whose rate is not known yet is given the benefit of the doubt as long as prompts are pending.
    """
    if load.pending_prefill_tokens and not load.prefill_tokens_per_s:
        return False
    prefill_s = load.pending_prefill_tokens / load.prefill_tokens_per_s if load.pending_prefill_tokens else 0.0
    return load.engine_step_age_s > _STALL_S + _PREFILL_MARGIN * prefill_s


def is_silent(load: WorkerLoad, now: float) -> bool:
    """Whether reports stay out for so long that the process, its host or the network must be in trouble."""
    return now - load.received_at > SILENT_AFTER_S
