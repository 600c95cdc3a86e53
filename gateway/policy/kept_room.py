"""Where the room is that a job leaves for others: on all workers together, and not on each.

Those for whom it is left go to any worker. But of each pool the last is of little use, since half of them are longer
than the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.policy.demand import Fit


def kept_on_each(free_tokens: Sequence[int], fit: Fit) -> list[int]:
    """What has to stay free beside the job on each worker, if it goes there; ``free_tokens`` are those of all now."""
    useful = [max(0, free - fit.mean_tokens) for free in free_tokens]
    missing = fit.spare_tokens - sum(useful)
    return [max(0, missing + own) for own in useful]
