"""What the quantizer refuses, each with a message that names the cause; ``__main__`` turns them into exit code 1."""

from __future__ import annotations

from collections.abc import Sequence


class QuantizerError(Exception):
    """Base of all refusals. The message is for the person at the terminal."""


class RecipeError(QuantizerError):
    """The recipe contradicts itself or the model, such as a group size that does not divide a layer."""


class UnsupportedModelError(QuantizerError):
    """The backend does not know this architecture."""


class BackendError(QuantizerError):
    """The quantizing library failed, or could not be installed. The message has its last words."""


class SourceError(QuantizerError):
    """The source, as loaded, is not what its own config says."""


class CalibrationError(QuantizerError):
    """The calibration file cannot be read, or does not hold enough for the recipe."""


class CheckpointError(QuantizerError):
    """A checkpoint on disk is damaged, incomplete or not the one its manifest describes."""


class TargetError(QuantizerError):
    """The output directory holds something else, or another run is working on it."""


class GateRefusedError(QuantizerError):
    """The checkpoint was measured and is not good enough. ``reasons`` has one sentence for each finding."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("not published:\n" + "\n".join(f"  - {reason}" for reason in reasons))
        self.reasons = tuple(reasons)
