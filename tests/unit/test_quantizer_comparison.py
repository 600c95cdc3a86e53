from __future__ import annotations

from random import Random

import pytest

from quantizer.evaluation.comparison import PassageScore, Scores, gap_ratio_interval, kl_ratio_interval


def _scores(*nlls: float, kl: float = 0.0) -> Scores:
    return Scores([PassageScore(tokens=10, nll=nll, kl=kl, top1=5, token_kl=()) for nll in nlls])


def test_a_gap_that_is_the_same_everywhere_has_no_width() -> None:
    """Each resample of equal passages is the same, and the ratio is that of the perplexities."""
    source, rtn, ours = _scores(*[20.0] * 8), _scores(*[30.0] * 8), _scores(*[25.0] * 8)
    expected = (ours.perplexity - source.perplexity) / (rtn.perplexity - source.perplexity)
    assert pytest.approx((expected, expected)) == gap_ratio_interval(ours, rtn, source, Random(0))


def test_passages_that_differ_make_an_interval_around_the_ratio() -> None:
    """Of the gap as of KL."""
    rng = Random(1)
    losses = [rng.uniform(10, 40) for _ in range(20)]
    source, rtn = _scores(*losses), _scores(*(loss + 5 for loss in losses))
    ours = _scores(*(loss + rng.uniform(0, 4) for loss in losses))
    interval = gap_ratio_interval(ours, rtn, source, Random(0))
    assert interval is not None
    ratio = (ours.perplexity - source.perplexity) / (rtn.perplexity - source.perplexity)
    assert interval[0] < ratio < interval[1]
    low, high = kl_ratio_interval(_scores(1, 2, kl=1.0), _scores(1, 2, kl=2.0), Random(0))
    assert (0.5, 0.5) == (low, high)


def test_without_a_gap_there_is_no_ratio() -> None:
    """Rounding to nearest that is as good as the source leaves nothing to be relative to."""
    same = _scores(20.0, 30.0)
    assert gap_ratio_interval(same, same, same, Random(0)) is None
