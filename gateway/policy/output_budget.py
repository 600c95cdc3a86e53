"""How many output tokens a deadline leaves time for, by the rates that a worker has measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gateway.errors import DeadlineTooShortError
from gateway.policy.load import WorkerLoad

# Kept back from the time that is left: one token too many costs the answer its good end.
_RESERVED_SHARE = 0.1


@dataclass(slots=True, kw_only=True, init=False)
class OutputDemand:
    """What a request asks for, in tokens. ``may_clamp``: whether less than ``max_output_tokens`` will do."""

    prompt_tokens: int
    min_output_tokens: int
    max_output_tokens: int
    may_clamp: bool
    has_begun: bool = False  # there is output already, which an error would take back

    def __init__(
        self,
        *,
        prompt_tokens: int,
        min_output_tokens: int,
        max_output_tokens: int,
        may_clamp: bool,
        has_begun: bool = False,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.min_output_tokens = min_output_tokens
        self.max_output_tokens = max_output_tokens
        self.may_clamp = may_clamp
        self.has_begun = has_begun


@dataclass(slots=True, kw_only=True, init=False)
class OutputBudget:
    """The most tokens to generate, and whether the deadline made them fewer than asked for."""

    max_output_tokens: int
    is_clamped: bool

    def __init__(self, *, max_output_tokens: int, is_clamped: bool) -> None:
        self.max_output_tokens = max_output_tokens
        self.is_clamped = is_clamped


def output_budget(demand: OutputDemand, load: WorkerLoad, *, remaining_s: float) -> OutputBudget:
    """What a worker with this ``load`` can do in ``remaining_s``; everything while it has no measured rates.

    Where less fits than the smallest output the request allows, that output is tried nevertheless: a prediction is no
    reason to answer nothing at all. Raises ``DeadlineTooShortError`` where not everything fits and less will not do,
    and where not even the first token would be in time: all that was computed for it would be wasted.
    """
    wanted = demand.max_output_tokens
    first_s = _first_token_s(load, prompt_tokens=demand.prompt_tokens)
    if first_s is not None and first_s >= remaining_s and not demand.has_begun:
        raise DeadlineTooShortError(
            f"{remaining_s:.3f} s are left, and the first token takes about {first_s:.3f} s",
            metadata={
                "remaining_ms": str(math.floor(remaining_s * 1000)),
                "first_token_ms": str(math.ceil(first_s * 1000)),
                "fitting_output_tokens": "0",
                "max_output_tokens": str(wanted),
            },
        )
    fitting = _fitting_tokens(load, prompt_tokens=demand.prompt_tokens, remaining_s=remaining_s)
    if fitting is None or fitting >= wanted:
        return OutputBudget(max_output_tokens=wanted, is_clamped=False)
    if not demand.may_clamp:
        raise DeadlineTooShortError(
            f"{remaining_s:.3f} s are left, enough for about {fitting} of {wanted} output tokens",
            metadata={
                "remaining_ms": str(math.floor(remaining_s * 1000)),
                "fitting_output_tokens": str(fitting),
                "max_output_tokens": str(wanted),
            },
        )
    clamped = max(1, demand.min_output_tokens, fitting)
    return OutputBudget(max_output_tokens=clamped, is_clamped=clamped < wanted)


def _first_token_s(load: WorkerLoad, *, prompt_tokens: int) -> float | None:
    if not load.prefill_tokens_per_s or not load.decode_tokens_per_s:
        return None
    return (load.pending_prefill_tokens + prompt_tokens) / load.prefill_tokens_per_s


def _fitting_tokens(load: WorkerLoad, *, prompt_tokens: int, remaining_s: float) -> int | None:
    first_token_s = _first_token_s(load, prompt_tokens=prompt_tokens)
    if first_token_s is None:
        return None
    # The rate is that of the whole batch, which these requests share. One request more slows the others little.
    token_s = max(1, load.running_requests) / load.decode_tokens_per_s
    usable_s = remaining_s * (1 - _RESERVED_SHARE) - first_token_s
    return max(0, math.floor(usable_s / token_s))
