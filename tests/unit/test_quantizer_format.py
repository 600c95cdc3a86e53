from __future__ import annotations

import pytest
import torch

from quantizer.awq_format import pack, round_to_nearest, unpack


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_unpacking_gives_back_what_was_packed() -> None:
    """All 16 values at all 8 places of an int32 survive, the one in the sign bit too."""
    groups = round_to_nearest(torch.randn(64, 128), 32)
    restored = unpack(**pack(groups))
    assert torch.equal(groups.integers, restored.integers)
    assert torch.equal(groups.zeros, restored.zeros)
    assert torch.equal(groups.scales, restored.scales)


def test_packs_bit_for_bit_as_autoawq_does() -> None:
    """The layout is AutoAWQ's own, so whatever reads its checkpoints reads ours."""
    from awq.modules.linear.gemm import WQLinear_GEMM

    from quantizer.backends import autoawq_cure  # noqa: F401 - imports awq without its farewell, an error to pytest

    groups = round_to_nearest(torch.randn(64, 128) * 0.05, 32)
    linear = torch.nn.Linear(128, 64, bias=False)
    linear.weight.data = groups.dequantize()
    scales, zeros = groups.scales.t().contiguous(), groups.zeros.t().contiguous()
    theirs = WQLinear_GEMM.from_linear(linear, w_bit=4, group_size=32, scales=scales, zeros=zeros)
    ours = pack(groups)
    assert torch.equal(theirs.qweight, ours["qweight"])
    assert torch.equal(theirs.qzeros, ours["qzeros"])
    assert torch.equal(theirs.scales, ours["scales"])


def test_rounding_errs_by_half_a_step_at_most() -> None:
    """Every weight inside its group's range is within half a scale, as stored in float16, of its value."""
    weight = torch.randn(32, 256)
    groups = round_to_nearest(weight, 64)
    steps = groups.scales.float().repeat_interleave(64, dim=1)
    # The zero point is rounded too, so an end of the range may be half a step outside it.
    assert bool(((groups.dequantize() - weight).abs() <= 1.01 * steps).all())
    assert 0.5 > float(((groups.dequantize() - weight).abs() / steps).median())


def test_a_group_of_one_sign_is_represented() -> None:
    """AutoAWQ clamps the zero point of an all-positive group at 0 and loses its upper end; here it does not."""
    weight = torch.linspace(0.8, 1.0, 64).repeat(8, 1)
    assert float((round_to_nearest(weight, 64).dequantize() - weight).abs().max()) < 0.04
    assert float((round_to_nearest(-weight, 64).dequantize() + weight).abs().max()) < 0.04


def test_a_group_of_zeros_stays_zero() -> None:
    """Nothing is divided by nothing."""
    assert torch.equal(torch.zeros(8, 64), round_to_nearest(torch.zeros(8, 64), 32).dequantize())


def test_integers_are_chosen_for_the_scale_that_is_stored() -> None:
    """Tiny weights, whose scales float16 rounds by a few per cent, lose no more than others."""
    weight = torch.randn(64, 64) * 3e-4
    error = (round_to_nearest(weight, 64).dequantize() - weight).norm() / weight.norm()
    ordinary = (round_to_nearest(weight * 1e3, 64).dequantize() - weight * 1e3).norm() / (weight * 1e3).norm()
    assert float(error) < 1.05 * float(ordinary)
