"""Bounds how much of its fleet a gateway may leave out on its own opinion."""

from __future__ import annotations

from collections.abc import Collection, Mapping

# Of all workers of a model, rounded down, but at least one; and never all.
_MAX_SHARE = 0.5
# The share of its chances that a worker keeps which would be out if it were not for the bound.
REPRIEVED_WEIGHT = 0.1


def reprieved(out: Mapping[str, float], *, total: int) -> Collection[str]:
    """Those of the workers ``out`` that stay in rotation; ``out`` tells how long each one would still be left out.

    Opinions can be wrong: a gateway that has lost its own network sees every worker fail. The longer a worker has shown
    itself bad, the sooner it is left out.
    """
    allowed = min(total - 1, max(1, int(total * _MAX_SHARE)))
    longest_first = sorted(out, key=lambda worker_id: (-out[worker_id], worker_id))
    return longest_first[max(0, allowed) :]
