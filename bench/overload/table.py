"""Scores as JSON lines or as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

from bench.overload.score import Score

_HEAD = (
    "policy",
    "served / refused (after waiting)",
    "tok/s",
    "goodput tok/s",
    "of oracle",
    "TTFT p50 / p99 s",
    "ITL p50 / p99 ms",
    "preemptions",
    "highest KV use",
    "refusal p99 ms: on arrival",
    "p50 s: after waiting",
    "RetryInfo error",
)


def json_lines(scores: Iterable[Score], facts: Mapping[str, object]) -> Iterator[str]:
    """A JSON object for each score; ``facts`` go into all of them. What is not a number is null."""
    for score in scores:
        fields = {name: None if value != value else value for name, value in asdict(score).items()}  # noqa: PLR0124
        yield json.dumps({**facts, **fields})


def table(scores: Iterable[Score]) -> Iterator[str]:
    """Lines of Markdown."""
    rows = list(scores)
    oracle = next((row.goodput_tokens_per_s for row in rows if row.policy == "oracle"), math.nan)
    yield f"| {' | '.join(_HEAD)} |"
    yield "|---" * len(_HEAD) + "|"
    for row in rows:
        cells = (
            row.policy,
            f"{row.served} / {row.refused} ({row.refused_after_waiting})",
            f"{row.tokens_per_s:,.0f}",
            f"{row.goodput_tokens_per_s:,.0f}",
            _number(row.goodput_tokens_per_s / oracle, ".2f"),
            f"{row.ttft_p50_s:.2f} / {row.ttft_p99_s:.2f}",
            f"{1e3 * row.itl_p50_s:.1f} / {1e3 * row.itl_p99_s:.1f}",
            str(row.preemptions),
            f"{row.highest_kv_use:.2f}",
            _number(1e3 * row.refusal_p99_s, ".1f"),
            _number(row.late_refusal_p50_s, ".2f"),
            _number(row.hint_median_error, ".0%"),
        )
        yield f"| {' | '.join(cells)} |"


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
