"""AWQ's "gemm" storage: 4-bit groups along the inputs, eight output channels to an int32, in an interleaved order.

Shapes, for a linear layer of ``out x in``: ``qweight`` int32 [in, out / 8], ``qzeros`` int32 [in / group, out / 8],
``scales`` float16 [in / group, out]. A weight is ``(q - zero) * scale``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantizer.recipe import BITS, PACKED_OUTPUTS

LARGEST = 2**BITS - 1
_SMALLEST_SCALE = 2.0**-17  # 128 steps of the smallest float16: still exact to 0.4 %
# Which output channel stands at each place of an int32; lowest four bits first.
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A weight matrix rounded to nearest, group by group: integers [out, in], scales and zeros [out, in / group]."""

    integers: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        """The weights as an engine will see them, float32 [out, in]."""
        grouped = self.integers.view(*self.scales.shape, -1).float()
        return ((grouped - self.zeros.unsqueeze(-1)) * self.scales.float().unsqueeze(-1)).view_as(self.integers)

    def split(self, outputs: Sequence[int]) -> list[Groups]:
        """The parts with so many outputs each, as ``torch.split``."""
        parts = (self.integers.split(outputs), self.scales.split(outputs), self.zeros.split(outputs))
        return [Groups(integers=one, scales=two, zeros=three) for one, two, three in zip(*parts, strict=True)]


def round_to_nearest(weight: torch.Tensor, group_size: int) -> Groups:
    """Quantize without any calibration.

    The integers are chosen for the scale that is stored, which is float16, and not for the one before it was rounded.
    """
    grouped = weight.detach().float().view(weight.shape[0], -1, group_size)
    low = grouped.amin(dim=-1).clamp_(max=0)  # zero is always exactly representable, as the format demands
    high = grouped.amax(dim=-1).clamp_(min=0)
    scales = ((high - low) / LARGEST).clamp_(min=_SMALLEST_SCALE).half()
    exact = scales.float()
    zeros = (-low / exact).round_().clamp_(0, LARGEST)
    integers = (grouped / exact.unsqueeze(-1)).round_().add_(zeros.unsqueeze(-1)).clamp_(0, LARGEST)
    return Groups(integers=integers.view_as(weight).to(torch.int32), scales=scales, zeros=zeros.to(torch.int32))


def pack(groups: Groups) -> dict[str, torch.Tensor]:
    """The three tensors of a quantized linear layer, as AWQ names them."""
    return {
        "qweight": _pack_outputs(groups.integers.t()),
        "qzeros": _pack_outputs(groups.zeros.t()),
        "scales": groups.scales.t().contiguous(),
    }


def unpack(qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor) -> Groups:
    """The reverse of ``pack``."""
    return Groups(
        integers=_unpack_outputs(qweight).t().contiguous(),
        scales=scales.t().contiguous(),
        zeros=_unpack_outputs(qzeros).t().contiguous(),
    )


def _pack_outputs(rows: torch.Tensor) -> torch.Tensor:
    """int32 [n, out] -> int32 [n, out / 8]."""
    eights = rows.reshape(rows.shape[0], -1, PACKED_OUTPUTS)[..., list(_ORDER)].to(torch.int64)
    shifts = torch.arange(0, 32, BITS, device=rows.device)
    return (eights << shifts).sum(dim=-1).to(torch.int32)  # the top channel may set the sign bit: to() wraps


def _unpack_outputs(packed: torch.Tensor) -> torch.Tensor:
    """int32 [n, out / 8] -> int32 [n, out]."""
    shifts = torch.arange(0, 32, BITS, dtype=torch.int32, device=packed.device)
    places = (packed.unsqueeze(-1) >> shifts) & LARGEST
    eights = torch.empty_like(places)
    eights[..., list(_ORDER)] = places
    return eights.reshape(packed.shape[0], -1)
