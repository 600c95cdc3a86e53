"""The recipe: everything that decides the bits of a checkpoint, apart from its source and its calibration text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from quantizer.errors import RecipeError

BITS = 4  # the only width that AWQ's packing, and vLLM's kernels for it, know
_SHORTEST = 8  # tokens; less than any chat template alone
PACKED_OUTPUTS = 32 // BITS  # output channels to an int32 of qweight


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``samples`` blocks of exactly ``length`` tokens; weights in groups of ``group_size`` inputs share a scale."""

    backend: str = "autoawq"
    group_size: int = 64
    samples: int = 32
    length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group_size not in (32, 64, 128):
            raise RecipeError(f"group size {self.group_size}: vLLM's AWQ kernels know 32, 64 and 128")
        if self.samples < 1 or self.length < _SHORTEST:
            raise RecipeError(f"{self.samples} samples of {self.length} tokens: the least is 1 of {_SHORTEST}")

    def to_json(self) -> dict[str, Any]:
        """The recipe as it stands in a manifest."""
        return asdict(self) | {"bits": BITS, "zero_point": True}
