from __future__ import annotations

import torch

from quantizer.awq_format import LARGEST, round_to_nearest
from quantizer.backends.feedback import round_with_feedback


def _error(weight: torch.Tensor, rounded: torch.Tensor, inputs: torch.Tensor) -> float:
    return float(((rounded - weight) @ inputs.t()).pow(2).mean())


def test_feedback_beats_rounding_to_nearest_where_inputs_go_together() -> None:
    """On correlated inputs, seen or not, the output is closer; scales, zeros and range stay as they were."""
    torch.manual_seed(0)
    weight, mixing = torch.randn(64, 128), torch.randn(40, 128)
    seen, unseen = torch.randn(500, 40) @ mixing, torch.randn(500, 40) @ mixing
    nearest = round_to_nearest(weight, 32)
    fed_back = round_with_feedback(weight, nearest, seen.t() @ seen)
    for inputs in (seen, unseen):
        feedback_error = _error(weight, fed_back.dequantize(), inputs)
        assert feedback_error < 0.5 * _error(weight, nearest.dequantize(), inputs)
    assert nearest.scales is fed_back.scales
    assert nearest.zeros is fed_back.zeros
    assert 0 <= int(fed_back.integers.min())
    assert LARGEST >= int(fed_back.integers.max())


def test_without_correlation_it_is_rounding_to_nearest() -> None:
    """Inputs that never rise together leave nothing to make up for."""
    torch.manual_seed(0)
    weight = torch.randn(16, 64)
    nearest = round_to_nearest(weight, 32)
    assert torch.equal(nearest.integers, round_with_feedback(weight, nearest, torch.eye(64)).integers)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    """A dead channel makes the Gram matrix singular, and the result is finite all the same."""
    torch.manual_seed(0)
    weight, inputs = torch.randn(16, 64), torch.randn(200, 64)
    inputs[:, :10] = 0
    nearest = round_to_nearest(weight, 32)
    dead = round_with_feedback(weight, nearest, torch.zeros(64, 64))
    assert torch.equal(nearest.integers, dead.integers)
    assert bool(round_with_feedback(weight, nearest, inputs.t() @ inputs).dequantize().isfinite().all())


def test_groups_of_stacked_weights_are_those_of_each() -> None:
    """Outputs do not depend on each other, so layers with the same input are rounded at once."""
    torch.manual_seed(0)
    weight, inputs = torch.randn(48, 64), torch.randn(200, 64)
    gram = inputs.t() @ inputs
    parts = round_with_feedback(weight, round_to_nearest(weight, 32), gram).split([16, 32])
    for part, own in zip(parts, weight.split([16, 32]), strict=True):
        assert torch.equal(round_with_feedback(own, round_to_nearest(own, 32), gram).integers, part.integers)
