"""The seam between the quantizer and a quantizing library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from quantizer.calibration.packing import Blocks
from quantizer.progress import Progress
from quantizer.recipe import Recipe
from quantizer.source import Source
from quantizer.staging import Staging


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """Every tensor of the checkpoint by name, and the ``quantization_config`` that tells an engine how to read them."""

    tensors: Mapping[str, torch.Tensor]
    quantization_config: Mapping[str, Any]


class Backend(Protocol):
    """A library that quantizes. It may not write anywhere but into ``staging``, and leaves ``source`` as it was."""

    def versions(self) -> dict[str, str]:
        """What decides the result besides the recipe: names and versions of libraries."""

    def check(self, source: Source, recipe: Recipe) -> None:
        """Refuse, before any work, what cannot be quantized. Raises ``UnsupportedModelError`` or ``RecipeError``."""

    def quantize(
        self, source: Source, recipe: Recipe, blocks: Blocks, staging: Staging, progress: Progress
    ) -> Quantized:
        """Quantize the layers that ``staging`` does not hold yet, and put everything together."""
