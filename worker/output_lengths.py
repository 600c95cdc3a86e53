"""How long outputs will be: quantiles of past outputs, by tenant and by length of the prompt. Pure.

What past requests did is the best guess there is before a token is made: with the same trace and the same SLO,
admission by learned lengths served a third more good tokens per second than admission by ``max_output_tokens``.
"""

from __future__ import annotations

from collections import OrderedDict

from ddsketch import DDSketch

_RELATIVE_ACCURACY = 0.02
# A guess from fewer outputs is no better than none.
_MIN_OUTPUTS = 20
# Outputs after which a sketch is set aside, so that at most twice as many speak for the present.
_WINDOW_OUTPUTS = 1_000


class _RecentOutputs:
    """A quantile over the latest outputs: those of the sketch being filled, and of the one filled before it."""

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._filling = DDSketch(_RELATIVE_ACCURACY)
        self._filled = DDSketch(_RELATIVE_ACCURACY)
        self._expected: float | None = None

    def add(self, output_tokens: int) -> None:
        self._filling.add(output_tokens)
        if self._filling.count >= _WINDOW_OUTPUTS:
            self._filled, self._filling = self._filling, DDSketch(_RELATIVE_ACCURACY)
        self._expected = None

    def expect(self) -> float | None:
        """None while there are too few outputs."""
        if self._expected is None and self._filled.count + self._filling.count >= _MIN_OUTPUTS:
            recent = DDSketch(_RELATIVE_ACCURACY)
            recent.merge(self._filled)
            recent.merge(self._filling)
            self._expected = recent.get_quantile_value(self._quantile)
        return self._expected


class OutputLengths:
    """Learns from finished outputs. Remembers a bounded number of groups, the latest to be used."""

    def __init__(self, *, quantile: float, max_groups: int = 1_024) -> None:
        """``quantile``: the share of outputs that shall be no longer than expected, 0 to 1."""
        self._quantile = quantile
        self._max_groups = max_groups
        self._groups: OrderedDict[tuple[str, int], _RecentOutputs] = OrderedDict()

    def expect(self, *, tenant: str, prompt_tokens: int, max_output_tokens: int) -> int:
        """The output tokens to reckon with: never above ``max_output_tokens``, and that where nothing is known."""
        outputs = self._groups.get(_group(tenant, prompt_tokens))
        expected = outputs.expect() if outputs is not None else None
        return max_output_tokens if expected is None else max(1, min(round(expected), max_output_tokens))

    def learn(self, *, tenant: str, prompt_tokens: int, output_tokens: int) -> None:
        """Count an output that came to its own end; one cut short by its client says nothing about the model."""
        group = _group(tenant, prompt_tokens)
        outputs = self._groups.setdefault(group, _RecentOutputs(self._quantile))
        self._groups.move_to_end(group)
        outputs.add(output_tokens)
        if len(self._groups) > self._max_groups:
            self._groups.popitem(last=False)


def _group(tenant: str, prompt_tokens: int) -> tuple[str, int]:
    """A tenant's prompts of about one length: within a factor of four."""
    return tenant, prompt_tokens.bit_length() // 2
