from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from quantizer.gate import DomainFigures, Figures, Limits, findings

_GOOD = DomainFigures(
    tokens=1000,
    source_perplexity=40.0,
    rtn_perplexity=50.0,
    perplexity=44.0,
    rtn_kl=0.30,
    kl=0.13,
    kl_p99=1.0,
    rtn_top1=0.70,
    top1=0.80,
    kl_ratio_interval=(0.42, 0.45),
    gap_ratio_interval=(0.35, 0.45),
)


def _figures(domain: DomainFigures = _GOOD, ratios: tuple[float, ...] = (0.5,) * 10) -> Figures:
    rtn = [0.1] * len(ratios)
    return Figures(
        domains={"text": domain},
        layer_errors=[ratio * error for ratio, error in zip(ratios, rtn, strict=True)],
        rtn_layer_errors=rtn,
    )


def test_a_good_checkpoint_has_no_findings() -> None:
    """Less than half of round-to-nearest's damage everywhere passes."""
    assert [] == findings(_figures(), Limits())


@pytest.mark.parametrize(
    ("change", "limits", "words"),
    [
        ({"kl": 0.28}, Limits(), "mean KL 0.28"),
        ({"perplexity": 49.9}, Limits(), "perplexity 49.9 is over 49.5"),
        ({"perplexity": math.inf}, Limits(), "not a finite number"),
        ({"kl": math.nan}, Limits(), "not a finite number"),
        ({}, Limits(max_kl=0.1), "mean KL 0.13 is over 0.1"),
        ({}, Limits(min_top1=0.9), "top-1 agreement 0.800 is under 0.9"),
        ({}, Limits(kl_ratio=0.4), "over 0.4"),
    ],
)
def test_each_limit_is_a_finding_by_domain(change: dict[str, Any], limits: Limits, words: str) -> None:
    """The sentence has the domain and the figure that missed its limit."""
    found = findings(_figures(replace(_GOOD, **change)), limits)
    assert any(sentence.startswith("text: ") and words in sentence for sentence in found)


def test_a_perplexity_within_noise_of_the_source_passes() -> None:
    """Where rounding to nearest does no damage either, a ratio of damages says nothing."""
    domain = replace(_GOOD, rtn_perplexity=40.1, perplexity=40.3)
    assert [] == findings(_figures(domain), Limits())


def test_a_broken_layer_is_named() -> None:
    """One layer that is worse than rounding to nearest is found although the figures as a whole pass."""
    found = findings(_figures(ratios=(0.5,) * 7 + (3.0, 0.5, 0.5)), Limits())
    assert "layers 7: reconstruction error above 1.25" in found[0]
    assert "damaged tensors" in found[-1]


def test_broken_layers_everywhere_point_to_the_method() -> None:
    """What AutoAWQ does on a CPU is recognised by its spread."""
    found = findings(_figures(replace(_GOOD, kl=9.0), ratios=(40.0,) * 10), Limits())
    assert "layers 0-9" in found[1]
    assert "applied to the weights and not to the norms" in found[-1]


def test_sound_layers_with_bad_figures_point_outside_them() -> None:
    """Rotary base, embeddings and the head are in no layer."""
    assert "outside them" in findings(_figures(replace(_GOOD, kl=9.0)), Limits())[-1]


def test_nan_is_traced_to_its_first_layer() -> None:
    """NaN passes no limit, although it is greater than none."""
    found = findings(_figures(replace(_GOOD, kl=math.nan), ratios=(0.5, 0.5, math.nan, math.nan)), Limits())
    assert "from layer 2 on" in found[-1]
