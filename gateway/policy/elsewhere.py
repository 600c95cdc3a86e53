"""What waits in the other gateways for the same workers, and who asks there, as far as the workers pass it on.

Each gateway tells a worker of itself with every job, and each worker's reports tell all gateways what it was told. So a
gateway that waits is known to the others as of its last try at any worker, a fraction of a second ago.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# A gateway that has something waiting sends something, or tries to, several times a second.
_OLD_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayQueue:
    """What waits in a gateway, in tokens of KV cache, as it told a worker at ``told_at``.

    Its first in line came at ``first_came_at``, and is of criticality ``first_rank``; its tenant may hold more than its
    share. Times are by the clock here. ``tenant_demands`` are in tokens per second; under an empty name are all tenants
    that were not told of by name. ``above_share_tokens`` of those that wait are of tenants above their share.
    """

    gateway_id: int
    waiting_tokens: int
    first_rank: int
    is_first_above_share: bool
    first_came_at: float
    told_at: float
    tenant_demands: tuple[tuple[str, float], ...] = ()
    above_share_tokens: int = 0


class Elsewhere:
    """The latest word of each other gateway."""

    def __init__(self, gateway_id: int) -> None:
        """``gateway_id`` is this gateway's own."""
        self._gateway_id = gateway_id
        self._latest: dict[int, GatewayQueue] = {}

    def hear(self, queues: Iterable[GatewayQueue]) -> None:
        """A worker has told of ``queues``; of some, another worker may have known more."""
        for queue in queues:
            known = self._latest.get(queue.gateway_id)
            if queue.gateway_id != self._gateway_id and (known is None or known.told_at < queue.told_at):
                self._latest[queue.gateway_id] = queue

    def gateways(self, now: float) -> list[GatewayQueue]:
        """Those that were heard of late."""
        if not self._latest:
            return []
        for gateway_id in [key for key, queue in self._latest.items() if now - queue.told_at > _OLD_S]:
            del self._latest[gateway_id]
        return list(self._latest.values())

    def queues(self, now: float) -> list[GatewayQueue]:
        """Those in which something waits now."""
        return [queue for queue in self.gateways(now) if queue.waiting_tokens]
