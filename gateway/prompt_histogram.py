"""How prompts are distributed by length and by turns, without their text, and how far two distributions are apart.

The same buckets stand in a traffic sketch, in a checkpoint's manifest and in the quantizer (docs/quantizer.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from tidegate.worker.v1 import worker_service_pb2

# Bucket i holds edges[i - 1] <= value < edges[i]; the last one has no upper edge.
PROMPT_TOKEN_EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
TURN_EDGES = (1, 2, 3, 5)  # 0 turns is plain text

_Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptHistogram:
    """Counts of prompts: one row for each bucket of lengths, in it one count for each bucket of turns."""

    counts: _Rows

    @classmethod
    def from_handshake(cls, response: worker_service_pb2.GetModelResponse) -> PromptHistogram | None:
        """A worker's calibration; None where it tells none, or one with other buckets than ours."""
        calibration = response.calibration
        edges = (tuple(calibration.prompt_token_edges), tuple(calibration.turn_edges))
        width, height = len(TURN_EDGES) + 1, len(PROMPT_TOKEN_EDGES) + 1
        if edges != (PROMPT_TOKEN_EDGES, TURN_EDGES) or len(calibration.counts) != width * height:
            return None
        return cls(counts=tuple(tuple(calibration.counts[i * width : (i + 1) * width]) for i in range(height)))

    @property
    def total(self) -> int:
        """Prompts in it."""
        return sum(map(sum, self.counts))

    def to_json(self) -> dict[str, Any]:
        """As it stands in a traffic sketch."""
        return {
            "prompt_token_edges": list(PROMPT_TOKEN_EDGES),
            "turn_edges": list(TURN_EDGES),
            "counts": [list(row) for row in self.counts],
        }


def bucket_of(*, prompt_tokens: int, turns: int) -> tuple[int, int]:
    """The row and the column of a prompt."""
    return bisect_right(PROMPT_TOKEN_EDGES, prompt_tokens), bisect_right(TURN_EDGES, turns)


def stability_index(expected: PromptHistogram, actual: PromptHistogram) -> float:
    """The population stability index of lengths or of turns, whichever is larger.

    Under 0.1 the two are alike, over 0.25 they are different populations. Taken one by one, since most of the 55
    buckets of both together would be empty.
    """
    lengths = (list(map(sum, histogram.counts)) for histogram in (expected, actual))
    turns = (list(map(sum, zip(*histogram.counts, strict=True))) for histogram in (expected, actual))
    return max(_index(*lengths), _index(*turns))


def _index(expected: Sequence[int], actual: Sequence[int]) -> float:
    return sum((now - then) * log(now / then) for then, now in zip(_shares(expected), _shares(actual), strict=True))


def _shares(counts: Sequence[int]) -> list[float]:
    """Half a prompt is added to every bucket, so that an empty one cannot make the index infinite."""
    total = sum(counts) + 0.5 * len(counts)
    return [(count + 0.5) / total for count in counts]
