"""How much waits in each gateway, as it told last, kept for the other gateways to read. Pure.

Gateways do not know one another, and what comes free at a worker goes to all of them. A worker makes nothing of it: it
is the place where they leave word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

# A gateway that has something waiting sends something, or tries to, several times a second.
_MEMORY_S = 2.0
_MAX_GATEWAYS = 64  # they stand in every report


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayQueue:
    """What waits in one gateway, in tokens of KV cache, as it said ``age_s`` ago.

    Its first in line is of that ``Criticality``, and had waited for so long then; its tenant may be above its share.
    ``tenant_demands``: who asks it for how many tokens per second. ``above_share_tokens`` wait behind all others.
    """

    gateway_id: int
    waiting_tokens: int
    first_criticality: int
    is_first_above_share: bool
    first_wait_s: float
    tenant_demands: tuple[tuple[str, float], ...] = ()
    above_share_tokens: int = 0
    age_s: float = 0.0


class WaitingBoard:
    """The latest word of each gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._words: dict[int, tuple[GatewayQueue, float]] = {}  # the one that spoke last stands last

    def tell(self, queue: GatewayQueue) -> None:
        """Keep it; beyond the bound the gateway goes that has been silent for longest."""
        self._words.pop(queue.gateway_id, None)
        self._words[queue.gateway_id] = (queue, self._clock())
        while len(self._words) > _MAX_GATEWAYS:
            del self._words[next(iter(self._words))]

    def current(self) -> list[GatewayQueue]:
        """What is not forgotten yet."""
        now = self._clock()
        self._words = {key: word for key, word in self._words.items() if now - word[1] <= _MEMORY_S}
        return [replace(queue, age_s=queue.age_s + now - told_at) for queue, told_at in self._words.values()]
