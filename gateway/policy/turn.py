"""Whose turn it is among gateways that wait for the same workers.

The more critical go first; of these, those whose tenant has no more than its share; of these, those that came first.

Room that comes free is seen by all of them at about one time. Were it a race, the wait would be a matter of luck, and
no forecast of it right. So a gateway lets those go first whose first in line comes before its own, for a moment: the
others may be unable to use that room, or gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.policy.elsewhere import GatewayQueue
from gateway.policy.waiter import Waiter

# All gateways have heard of room within a report's interval and a hop.
_HOLD_S = 0.025


class Turn:
    """Since when this gateway has seen room for its first in line, without a break."""

    def __init__(self) -> None:
        self.ask_again_at: float | None = None  # while ``may_go`` has said no
        self._seen_since: float | None = None

    def may_go(self, first: Waiter, elsewhere: Iterable[GatewayQueue], now: float) -> bool:
        """Whether ``first``, which has room, may take it now."""
        if self._seen_since is None:
            self._seen_since = now
        own = (first.rank, first.is_above_share, first.arrived_at)
        before = sum((queue.first_rank, queue.is_first_above_share, queue.first_came_at) < own for queue in elsewhere)
        go_at = self._seen_since + _HOLD_S * before
        self.ask_again_at = go_at if now < go_at else None
        return now >= go_at

    def end(self) -> None:
        """The room has been taken, by this gateway or another one."""
        self.ask_again_at = self._seen_since = None
