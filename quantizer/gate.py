"""The gate: whether measured figures are good enough to publish, and if not, which layer and which cause it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

# A perplexity that is higher than the source's by no more than this is as good as the source's.
_NOISE = 0.02
_WIDESPREAD = 0.5  # of the layers; from here on it is not one layer that is broken but the method


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a checkpoint has to reach, relative to rounding its source to nearest at the same group size.

    The two optional limits are absolute. They depend on the model, so they have no default.
    """

    kl_ratio: float = 0.9  # mean KL divergence from the source, in each domain
    gap_ratio: float = 0.95  # perplexity above the source's, in each domain
    layer_ratio: float = 1.25  # reconstruction error, in each layer
    max_kl: float | None = None  # nats a token, in each domain
    min_top1: float | None = None  # share of tokens, in each domain

    def to_json(self) -> dict[str, float | None]:
        """As they stand in a manifest."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFigures:
    """What was measured in one domain: of the source, of round-to-nearest (rtn) and of the checkpoint."""

    tokens: int
    source_perplexity: float
    rtn_perplexity: float
    perplexity: float
    rtn_kl: float
    kl: float
    kl_p99: float
    rtn_top1: float
    top1: float
    kl_ratio_interval: tuple[float, float]  # 95 %
    gap_ratio_interval: tuple[float, float] | None  # 95 %

    @property
    def kl_ratio(self) -> float:
        """KL relative to round-to-nearest's."""
        return self.kl / max(self.rtn_kl, 1e-12)

    @property
    def gap_ratio(self) -> float | None:
        """The perplexity gap relative to round-to-nearest's; None where that has none."""
        gap = self.rtn_perplexity - self.source_perplexity
        return (self.perplexity - self.source_perplexity) / gap if gap > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that was measured. Layer errors are relative to what the source's layer adds to its input."""

    domains: Mapping[str, DomainFigures]
    layer_errors: Sequence[float]
    rtn_layer_errors: Sequence[float]

    def layer_ratios(self) -> list[float]:
        """Each layer's error relative to round-to-nearest's."""
        pairs = zip(self.layer_errors, self.rtn_layer_errors, strict=True)
        return [error / max(rtn, 1e-12) for error, rtn in pairs]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Figures:
        """Those that ``to_json`` wrote."""
        names = [field.name for field in fields(DomainFigures)]
        return cls(
            domains={
                name: DomainFigures(**{key: domain[key] for key in names}) for name, domain in value["domains"].items()
            },
            layer_errors=[layer["error"] for layer in value["layers"]],
            rtn_layer_errors=[layer["rtn_error"] for layer in value["layers"]],
        )

    def to_json(self) -> dict[str, Any]:
        """As they stand in a manifest and in a report."""
        return {
            "domains": {
                name: asdict(found) | {"kl_ratio": found.kl_ratio, "gap_ratio": found.gap_ratio}
                for name, found in self.domains.items()
            },
            "layers": [
                {"error": error, "rtn_error": rtn}
                for error, rtn in zip(self.layer_errors, self.rtn_layer_errors, strict=True)
            ],
        }


def findings(figures: Figures, limits: Limits) -> list[str]:
    """One sentence for each limit that is missed, and one for the likely cause; empty if the checkpoint is good."""
    missed = [f"{name}: {sentence}" for name, domain in figures.domains.items() for sentence in _missed(domain, limits)]
    bad = [i for i, ratio in enumerate(figures.layer_ratios()) if not ratio <= limits.layer_ratio]
    if bad:
        worst = max(bad, key=lambda i: figures.layer_ratios()[i])
        missed.append(
            f"layers {_ranges(bad)}: reconstruction error above {limits.layer_ratio} of round-to-nearest's; "
            f"worst is layer {worst} with {figures.layer_ratios()[worst]:.3g} of it"
        )
    return [*missed, f"likely cause: {_cause(figures, bad)}"] if missed else []


def _missed(domain: DomainFigures, limits: Limits) -> list[str]:
    # Each comparison is written so that NaN misses it.
    sentences = []
    if not (math.isfinite(domain.perplexity) and math.isfinite(domain.kl)):
        sentences.append("perplexity or KL is not a finite number")
    if not domain.kl_ratio <= limits.kl_ratio:
        ratio = f"{domain.kl_ratio:.3g} of round-to-nearest's"
        sentences.append(f"mean KL {domain.kl:.4g} is {ratio}, over {limits.kl_ratio}")
    allowed = limits.gap_ratio * max(0.0, domain.rtn_perplexity - domain.source_perplexity)
    allowed = domain.source_perplexity + max(allowed, _NOISE * domain.source_perplexity)
    if not domain.perplexity <= allowed:
        sentences.append(
            f"perplexity {domain.perplexity:.4g} is over {allowed:.4g}: the source has {domain.source_perplexity:.4g}, "
            f"and the gap may be {limits.gap_ratio} of round-to-nearest's"
        )
    if limits.max_kl is not None and not domain.kl <= limits.max_kl:
        sentences.append(f"mean KL {domain.kl:.4g} is over {limits.max_kl}")
    if limits.min_top1 is not None and not domain.top1 >= limits.min_top1:
        sentences.append(f"top-1 agreement {domain.top1:.3f} is under {limits.min_top1}")
    return sentences


def _cause(figures: Figures, bad: Sequence[int]) -> str:
    ratios = figures.layer_ratios()
    if not all(map(math.isfinite, ratios)):
        first = next(i for i, ratio in enumerate(ratios) if not math.isfinite(ratio))
        return f"NaN or infinity from layer {first} on: a scale that overflowed float16, or damaged tensors"
    if len(bad) > _WIDESPREAD * len(ratios):
        return (
            "scales that were applied to the weights and not to the norms before them, in nearly every layer: "
            "AutoAWQ does this where its backup of the weights is the weights (on a CPU), or the packing order is wrong"
        )
    if bad:
        return (
            f"damaged tensors, or scales found on too little calibration, in layers {_ranges(bad)} "
            f"(the median layer has {median(ratios):.2g} of round-to-nearest's error)"
        )
    if all(not domain.kl_ratio <= 1 for domain in figures.domains.values()):
        return (
            "every layer is sound by itself, so what stands outside them differs from the source: "
            "rotary embedding, token embeddings, final norm or lm_head"
        )
    return "calibration that does not resemble these texts, or too little of it"


def _ranges(numbers: Sequence[int]) -> str:
    """[1, 2, 3, 7] -> "1-3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
