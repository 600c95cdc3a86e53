"""For whom there was no room a moment ago, so that nobody is asked for who needs as much. Pure.

Where all that wait have to leave room for others, each of them is tried, on every worker, and that with each report of
each worker. Most of a thousand tenants' requests need no less than one that has just been tried.
"""

from __future__ import annotations

from gateway.policy.demand import Demand, Fit

_Kind = tuple[int, int, int | None]
_Size = tuple[int, int, int]


class Misfits:
    """Those of one moment and one model: no room comes free meanwhile, though some may be taken."""

    def __init__(self) -> None:
        # By what they have to leave for others, the smallest of them.
        self._sizes: dict[_Kind, list[_Size]] = {}

    def cover(self, demand: Demand, fit: Fit) -> bool:
        """Whether one that needs no more in any way found no room."""
        tokens, prompt_tokens, need_tokens = _size(demand, fit)
        for size in self._sizes.get(_kind(fit), ()):
            if size[0] <= tokens and size[1] <= prompt_tokens and size[2] <= need_tokens:
                return True
        return False

    def add(self, demand: Demand, fit: Fit) -> None:
        """No worker had room for this one, and not for a reason of its own."""
        tokens, prompt_tokens, need_tokens = new = _size(demand, fit)
        sizes = self._sizes.get(_kind(fit), [])
        larger = [size for size in sizes if size[0] >= tokens and size[1] >= prompt_tokens and size[2] >= need_tokens]
        self._sizes[_kind(fit)] = [*(size for size in sizes if size not in larger), new]


def _kind(fit: Fit) -> _Kind:
    return (fit.spare_tokens, fit.mean_tokens, fit.prefill_line_tokens)


def _size(demand: Demand, fit: Fit) -> _Size:
    return (fit.expected_tokens, demand.prompt_tokens, demand.need_tokens)
