"""How prompts are distributed by length and by turns; the same buckets in a traffic sketch, a manifest and a report."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from quantizer.errors import CalibrationError

PROMPT_TOKEN_EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
TURN_EDGES = (1, 2, 3, 5)  # 0 turns is plain text; then one, two, three to four, five and more

Bucket = tuple[int, int]  # index of the length bucket, index of the turn bucket


def bucket_of(prompt_tokens: int, turns: int) -> Bucket:
    """Bucket ``i`` of a list of edges holds ``edges[i - 1] <= value < edges[i]``; the last one has no upper edge."""
    return bisect_right(PROMPT_TOKEN_EDGES, prompt_tokens), bisect_right(TURN_EDGES, turns)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of prompts by bucket; buckets without a prompt are absent."""

    counts: Mapping[Bucket, int]

    @classmethod
    def of(cls, prompts: Iterable[tuple[int, int]]) -> Histogram:
        """Count pairs of (prompt tokens, turns)."""
        return cls(dict(Counter(bucket_of(tokens, turns) for tokens, turns in prompts)))

    @classmethod
    def from_json(cls, value: Any) -> Histogram:
        """Read what ``to_json`` wrote. Raises ``CalibrationError`` for other edges or a wrong shape."""
        if not isinstance(value, Mapping):
            raise CalibrationError("histogram: an object is expected")
        edges = (value.get("prompt_token_edges"), value.get("turn_edges"))
        if edges != (list(PROMPT_TOKEN_EDGES), list(TURN_EDGES)):
            raise CalibrationError(
                f"histogram: edges are {edges[0]} and {edges[1]}, not {list(PROMPT_TOKEN_EDGES)} and {list(TURN_EDGES)}"
            )
        rows: Any = value.get("counts")
        if not _is_matrix(rows, len(PROMPT_TOKEN_EDGES) + 1, len(TURN_EDGES) + 1):
            raise CalibrationError(
                f"histogram: counts must be {len(PROMPT_TOKEN_EDGES) + 1} rows (prompt tokens) "
                f"of {len(TURN_EDGES) + 1} non-negative integers (turns)"
            )
        return cls({(i, j): count for i, row in enumerate(rows) for j, count in enumerate(row) if count})

    def to_json(self) -> dict[str, Any]:
        """Edges and a matrix of counts: one row for each length bucket, in it one count for each turn bucket."""
        return {
            "prompt_token_edges": list(PROMPT_TOKEN_EDGES),
            "turn_edges": list(TURN_EDGES),
            "counts": [
                [self.counts.get((i, j), 0) for j in range(len(TURN_EDGES) + 1)]
                for i in range(len(PROMPT_TOKEN_EDGES) + 1)
            ],
        }

    def by_length(self) -> list[int]:
        """Counts by prompt length alone."""
        return [sum(row) for row in self.to_json()["counts"]]

    def by_turns(self) -> list[int]:
        """Counts by turns alone."""
        return [sum(column) for column in zip(*self.to_json()["counts"], strict=True)]


def population_stability_index(expected: Sequence[int], actual: Sequence[int]) -> float:
    """How far ``actual`` counts have moved from ``expected``: under 0.1 is stable, over 0.25 a different population.

    Half a prompt is added to every bucket, so that an empty one cannot make the index infinite.
    """
    return sum((now - then) * log(now / then) for then, now in zip(_smoothed(expected), _smoothed(actual), strict=True))


def _smoothed(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + 0.5 * len(counts)
    return [(count + 0.5) / total for count in counts]


def _is_matrix(rows: Any, height: int, width: int) -> bool:
    return (
        isinstance(rows, list)
        and len(rows) == height
        and all(isinstance(row, list) and len(row) == width for row in rows)
        and all(type(count) is int and count >= 0 for row in rows for count in row)
    )
