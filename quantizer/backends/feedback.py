"""Round with feedback: the error of each column of weights is made up for by the columns that are not rounded yet.

This is GPTQ's step (Frantar et al., 2022), here after AWQ's: AWQ decides the scales and the range of every group, this
decides which of the two neighbouring integers each weight becomes. Rounding each to its nearest ignores that inputs go
together; where two inputs always rise at once, an error at the one can be cancelled at the other.
"""

from __future__ import annotations

import torch

from quantizer.awq_format import LARGEST, Groups

_DAMPING = 0.1  # of the mean diagonal: a few thousand tokens do not show all that inputs do together
_BLOCK = 128  # columns after which the columns behind them are updated, all at once


def round_with_feedback(weight: torch.Tensor, groups: Groups, gram: torch.Tensor) -> Groups:
    """New integers for ``weight`` [out, in] on the grid of ``groups``; ``gram`` is X^T X of inputs X [tokens, in]."""
    size = weight.shape[1] // groups.scales.shape[1]
    gram = gram.clone()
    gram.diagonal().add_(_DAMPING * gram.diagonal().mean() + 1e-12)
    # Columns that matter most are rounded first, while all others can still make up for them.
    order = gram.diagonal().argsort(descending=True, stable=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    columns = weight.float().t()[order].contiguous()
    scales = groups.scales.float().t()[order // size].contiguous()
    lowest = -groups.zeros.float().t()[order // size].contiguous()
    weighted = scales / factor.diagonal().unsqueeze(-1)
    steps = torch.empty_like(columns)  # integers less their zero points
    for start in range(0, len(columns), _BLOCK):
        end = min(start + _BLOCK, len(columns))
        errors = torch.empty_like(columns[start:end])
        for i in range(start, end):
            exact = columns[i] / scales[i]
            torch.clamp(exact.round(), lowest[i], lowest[i] + LARGEST, out=steps[i])
            torch.mul(exact.sub_(steps[i]), weighted[i], out=errors[i - start])
            columns[i + 1 : end].addr_(factor[i, i + 1 : end], errors[i - start], alpha=-1)
        columns[end:].addmm_(factor[start:end, end:].t(), errors, alpha=-1)
    restored = torch.empty_like(steps)
    restored[order] = steps.sub_(lowest)
    return Groups(integers=restored.t().contiguous().to(torch.int32), scales=groups.scales, zeros=groups.zeros)
