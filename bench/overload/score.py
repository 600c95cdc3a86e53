"""What a run is worth: tokens of requests inside the SLO, over the window of arrivals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SLO_TTFT_S, SLO_ITL_S = 2.0, 0.040


@dataclass(slots=True, kw_only=True)
class Answer:
    """What became of one arrival. Times are those of the trace; None where it did not come to that.

    ``hint_s`` is the RetryInfo of a refusal, and ``needed_wait_s`` how long the wait would have been that it names:
    until a request in line behind all that waited then would have started.
    """

    arrival_s: float
    first_token_at: float | None = None
    last_token_at: float | None = None
    output_tokens: int = 0
    is_complete: bool = False
    refused_at: float | None = None
    has_waited: bool = False  # before it was refused: it was let wait, and sent away from there
    failure: str = ""  # what else went wrong
    hint_s: float | None = None
    needed_wait_s: float | None = None

    @property
    def ttft_s(self) -> float | None:
        """From the intended arrival to the first token."""
        return None if self.first_token_at is None else self.first_token_at - self.arrival_s

    @property
    def itl_s(self) -> float | None:
        """The mean time between its tokens."""
        if self.first_token_at is None or self.last_token_at is None:
            return None
        return (self.last_token_at - self.first_token_at) / max(1, self.output_tokens - 1)

    @property
    def is_good(self) -> bool:
        """Whether it came to its end inside the SLO."""
        ttft_s, itl_s = self.ttft_s, self.itl_s
        return self.is_complete and (ttft_s or 0.0) <= SLO_TTFT_S and (itl_s or 0.0) <= SLO_ITL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFigures:
    """What the engine says of a run. ``highest_kv_use`` is a share of the pool."""

    preemptions: int
    highest_kv_use: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One policy's run of one trace. Rates are per second of the window, but for ``tokens_per_s``: it counts the drain.

    Errors are relative. ``refusal_p99_s`` is of those that were not let wait, ``late_refusal_p50_s`` of the others.
    """

    policy: str
    offered: int
    served: int
    refused: int
    refused_after_waiting: int
    failed: int
    goodput_tokens_per_s: float
    good_requests_per_s: float
    tokens_per_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p99_s: float
    preemptions: int
    highest_kv_use: float
    refusal_p99_s: float
    late_refusal_p50_s: float
    hint_median_error: float


def score(policy: str, answers: Sequence[Answer], *, window_s: float, engine: EngineFigures) -> Score:
    """Judge a run that has come to its end."""
    served = [answer for answer in answers if answer.is_complete]
    good = [answer for answer in served if answer.is_good]
    refused = [answer for answer in answers if answer.refused_at is not None]
    at_once = [(answer.refused_at or 0.0) - answer.arrival_s for answer in refused if not answer.has_waited]
    late = [(answer.refused_at or 0.0) - answer.arrival_s for answer in refused if answer.has_waited]
    until_s = max((answer.last_token_at or 0.0 for answer in served), default=0.0)
    ttfts = [answer.ttft_s for answer in served if answer.ttft_s is not None]
    itls = [answer.itl_s for answer in served if answer.itl_s is not None]
    hint_errors = [
        abs(answer.hint_s / answer.needed_wait_s - 1)
        for answer in refused
        if answer.hint_s is not None and answer.needed_wait_s
    ]
    return Score(
        policy=policy,
        offered=len(answers),
        served=len(served),
        refused=len(refused),
        refused_after_waiting=len(late),
        failed=sum(bool(answer.failure) for answer in answers),
        goodput_tokens_per_s=sum(answer.output_tokens for answer in good) / window_s,
        good_requests_per_s=len(good) / window_s,
        tokens_per_s=sum(answer.output_tokens for answer in served) / max(until_s, window_s),
        ttft_p50_s=quantile(ttfts, 0.5),
        ttft_p99_s=quantile(ttfts, 0.99),
        itl_p50_s=quantile(itls, 0.5),
        itl_p99_s=quantile(itls, 0.99),
        preemptions=engine.preemptions,
        highest_kv_use=engine.highest_kv_use,
        refusal_p99_s=quantile(at_once, 0.99),
        late_refusal_p50_s=quantile(late, 0.5),
        hint_median_error=quantile(hint_errors, 0.5),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all are below; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan
