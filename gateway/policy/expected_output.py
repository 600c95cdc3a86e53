"""How long outputs will be, as far as this gateway has seen: quantiles by tenant and by length of the prompt.

The worker has the last word with its own numbers, and tunes the quantile to go by. This keeps requests from being sent
where they will not fit, and from waiting for room that they will not need.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ddsketch import DDSketch

_RELATIVE_ACCURACY = 0.02
# A guess from fewer outputs is no better than the next wider one.
_MIN_OUTPUTS = 20
# Outputs after which a sketch is set aside, so that at most twice as many speak for the present.
_WINDOW_OUTPUTS = 1_000
# A quantile is looked up anew when this share of the outputs is new: it costs more than all else of a request here.
_NEWS = 1 / 32
# So many outputs are sorted into a sketch at a time: what is done for many in one go costs each of them less.
_UNSORTED_OUTPUTS = 32


@dataclass(slots=True, kw_only=True, init=False)
class ReportedOutput:
    """What the workers go by: the share of outputs that shall be no longer than expected, and what that is on average.

    ``usual_tokens`` is None before anything was learned.
    """

    quantile: float
    usual_tokens: int | None

    def __init__(self, *, quantile: float, usual_tokens: int | None) -> None:
        self.quantile = quantile
        self.usual_tokens = usual_tokens


class _Outputs:
    """A quantile over the latest outputs: those of the sketch being filled, and of the one filled before it."""

    def __init__(self) -> None:
        self._filling = DDSketch(_RELATIVE_ACCURACY)
        self._filling_count = 0  # of the outputs that are in it, or are to be
        self._unsorted: list[int] = []
        self._filled = DDSketch(_RELATIVE_ACCURACY)
        self._expected: tuple[float, float | None] | None = None  # the quantile last asked for, and its value
        self._news_until_next = 0  # outputs, until that value is out of date

    def add(self, output_tokens: int) -> None:
        self._unsorted.append(output_tokens)
        self._filling_count += 1
        if len(self._unsorted) >= _UNSORTED_OUTPUTS:
            self._sort()
        if self._filling_count >= _WINDOW_OUTPUTS:
            self._sort()
            self._filled, self._filling = self._filling, DDSketch(_RELATIVE_ACCURACY)
            self._filling_count = 0
        self._news_until_next -= 1

    def expect(self, quantile: float) -> float | None:
        if self._expected is None or self._expected[0] != quantile or self._news_until_next <= 0:
            self._sort()
            latest = DDSketch(_RELATIVE_ACCURACY)
            latest.merge(self._filled)
            latest.merge(self._filling)
            is_enough = latest.count >= _MIN_OUTPUTS
            self._expected = quantile, latest.get_quantile_value(quantile) if is_enough else None
            self._news_until_next = max(1, int(latest.count * _NEWS))
        return self._expected[1]

    def _sort(self) -> None:
        for output_tokens in self._unsorted:
            self._filling.add(output_tokens)
        self._unsorted.clear()


class ExpectedOutput:
    """Learns from finished outputs. Remembers a bounded number of groups, the latest to be used."""

    def __init__(self, *, max_groups: int = 1_024) -> None:
        self._max_groups = max_groups
        self._groups: OrderedDict[tuple[str, str | None, int], _Outputs] = OrderedDict()

    def expect(
        self,
        *,
        model: str,
        tenant: str,
        prompt_tokens: int,
        max_output_tokens: int,
        reported: ReportedOutput,
    ) -> int:
        """The output tokens to reckon with, 1 to ``max_output_tokens``.

        What is not known of the tenant is taken from all tenants' prompts of that length, then from what the workers
        have ``reported``; where nothing is known, everything has to be expected.
        """
        for key in _groups(model, tenant, prompt_tokens):
            outputs = self._groups.get(key)
            expected = outputs.expect(reported.quantile) if outputs is not None else None
            if expected is not None:
                return max(1, min(round(expected), max_output_tokens))
        return max(1, min(reported.usual_tokens or max_output_tokens, max_output_tokens))

    def learn(self, *, model: str, tenant: str, prompt_tokens: int, output_tokens: int) -> None:
        """Count an output that came to its own end; one cut short says nothing about the model."""
        for key in _groups(model, tenant, prompt_tokens):
            outputs = self._groups.get(key)
            if outputs is None:
                outputs = self._groups[key] = _Outputs()
            self._groups.move_to_end(key)
            outputs.add(output_tokens)
        while len(self._groups) > self._max_groups:
            self._groups.popitem(last=False)


def _groups(model: str, tenant: str, prompt_tokens: int) -> tuple[tuple[str, str | None, int], ...]:
    """Prompts of about one length, within a factor of four: the tenant's own, and everybody's."""
    length = prompt_tokens.bit_length() // 2
    return (model, tenant, length), (model, None, length)
