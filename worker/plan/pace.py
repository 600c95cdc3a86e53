"""How fast one engine is under a steady load of equal requests, by the times of its steps. Pure.

An engine makes one step after the other, and each gives every running request a token. With r requests a second, p the
time that one request's prompt takes, d the time of one output in a step, o output tokens and so r o ITL requests that
decode (Little's law), a step takes

    ITL = base + (r o ITL) d + (r ITL) p + mixed (1 - exp(-r ITL)),

the last term for steps in which prompts stand beside outputs, which are those in whose time at least one request came.
The engine cannot keep up when r (p + o d) is 1. The sim's own scheduler, given requests at random, is within a sixth of
both times up to a busy share of 0.6 (the test does it again); beyond, prompts queue and the TTFT grows faster than
this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from worker.sim_profile import StepTiming

_HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One request, all being alike; lengths in tokens. The ledger reserves for ``reserved_output_tokens``."""

    prompt_tokens: int
    output_tokens: int
    reserved_output_tokens: int

    def blocks(self, block_size: int) -> int:
        """KV blocks that the ledger reserves."""
        return -(-(self.prompt_tokens + self.reserved_output_tokens) // block_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Means of an engine that gets so much. ``streams`` are inside, from admission to the last token."""

    requests_per_s: float
    busy_share: float
    ttft_s: float
    itl_s: float
    streams: float


def pace(timing: StepTiming, traffic: Traffic, requests_per_s: float, *, max_batched_tokens: int) -> Pace | None:
    """The engine at that load; None where it cannot keep up."""
    prompt_s = traffic.prompt_tokens * timing.prefill_token_s
    if requests_per_s * (prompt_s + traffic.output_tokens * timing.decode_request_s) >= 1:
        return None
    itl_s = _step_s(timing, traffic, requests_per_s)
    ttft_s = _ttft_s(timing, traffic, requests_per_s, itl_s, max_batched_tokens)
    return Pace(
        requests_per_s=requests_per_s,
        busy_share=1 - timing.base_s / itl_s,
        ttft_s=ttft_s,
        itl_s=itl_s,
        streams=requests_per_s * (ttft_s + (traffic.output_tokens - 1) * itl_s),
    )


def _step_s(timing: StepTiming, traffic: Traffic, requests_per_s: float) -> float:
    """The duration of a step that solves the equation above, by halving."""
    prompt_s = traffic.prompt_tokens * timing.prefill_token_s

    def step_s(itl_s: float) -> float:
        came = requests_per_s * itl_s
        decoding = max(1.0, came * traffic.output_tokens)  # a lone request decodes with itself, not a part of itself
        mixed_s = timing.mixed_step_s * (1 - math.exp(-came))
        return timing.base_s + decoding * timing.decode_request_s + came * prompt_s + mixed_s

    spare = 1 - requests_per_s * (prompt_s + traffic.output_tokens * timing.decode_request_s)
    low, high = 0.0, (timing.base_s + timing.decode_request_s + timing.mixed_step_s) / spare
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if step_s(middle) > middle else (low, middle)
    return high


def _ttft_s(
    timing: StepTiming, traffic: Traffic, requests_per_s: float, itl_s: float, max_batched_tokens: int
) -> float:
    """A request waits for the step that runs, if one does, and is computed in the next, beside those that came with it.

    It comes rather in a long step than in a short one: the mean of steps weighs each by its length.
    """
    decoding, came = requests_per_s * traffic.output_tokens * itl_s, requests_per_s * itl_s
    running = 1 - math.exp(-decoding)
    with_prompts = 1 - math.exp(-came)
    prompt_s = traffic.prompt_tokens * timing.prefill_token_s
    short_s = timing.base_s + decoding * timing.decode_request_s
    long_s = short_s + timing.mixed_step_s + (came / with_prompts * prompt_s if with_prompts else prompt_s)
    weighed_s = (1 - with_prompts) * short_s * short_s / itl_s + with_prompts * long_s * long_s / itl_s
    own_s = short_s + prompt_s + running * (timing.mixed_step_s + requests_per_s * weighed_s * prompt_s)
    further_steps = -(-traffic.prompt_tokens // max_batched_tokens) - 1
    return timing.request_overhead_s + running * weighed_s / 2 + own_s + further_steps * short_s


def scaled(timing: StepTiming, *, weights: float, parameters: float) -> StepTiming:
    """The times of a model with so many times the bytes of weights and so many times the parameters.

    A step reads all weights once; what it computes for a token grows with the parameters.
    """
    return StepTiming(
        base_s=timing.base_s * weights,
        prefill_token_s=timing.prefill_token_s * parameters,
        decode_request_s=timing.decode_request_s * parameters,
        request_overhead_s=timing.request_overhead_s,
        mixed_step_s=timing.mixed_step_s,
    )
