"""How fast an engine computes prompts when it has plenty of them: step times, fitted over their prompt tokens. Pure.

A step with twenty prompt tokens takes nearly as long as one with two hundred: the quotient of the two tells how little
was asked for, not how much could be done. So small steps do not count, and of the others a line is drawn,
seconds = step_s + token_s x tokens, whose value at a full step is the pace.
"""

from __future__ import annotations

import math

# Steps of fewer prompt tokens say too little of what a token costs.
_MIN_TOKENS = 256
_TIME_CONSTANT_S = 5.0
# Of the product of the variances; below, all steps were as large as one another, and a line has no slope.
_MIN_DETERMINANT = 0.01


class PrefillFit:
    """Weighted least squares, the last ``_TIME_CONSTANT_S`` of prefilling weighing most."""

    def __init__(self, full_step_tokens: int) -> None:
        self._full_step_tokens = full_step_tokens
        self._nn = self._nx = self._xx = self._ny = self._xy = 0.0

    def add(self, tokens: int, *, steps: int, seconds: float) -> None:
        """``steps`` in a row have computed ``tokens`` of prompts."""
        if tokens < _MIN_TOKENS or seconds <= 0:
            return
        decay = math.exp(-seconds / _TIME_CONSTANT_S)
        self._nn = self._nn * decay + steps * steps
        self._nx = self._nx * decay + steps * tokens
        self._xx = self._xx * decay + tokens * tokens
        self._ny = self._ny * decay + steps * seconds
        self._xy = self._xy * decay + tokens * seconds

    @property
    def tokens_per_s(self) -> float:
        """The pace of full steps; 0 before the first step that counts."""
        if not self._xx:
            return 0.0
        determinant = self._nn * self._xx - self._nx * self._nx
        if determinant > _MIN_DETERMINANT * self._nn * self._xx:
            step_s = (self._ny * self._xx - self._xy * self._nx) / determinant
            token_s = (self._nn * self._xy - self._nx * self._ny) / determinant
            if step_s >= 0 and token_s > 0:
                return self._full_step_tokens / (step_s + token_s * self._full_step_tokens)
        return self._xx / self._xy  # the line through the origin
