"""A limit that tells of each of its decisions, and makes them again from what it told."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict

from gateway.policy.limit import Limit, Usage
from gateway.policy.record import SEED_BITS, Record


class RecordedLimit(Limit):
    """Tells ``on_decision`` who was let in, and who was not."""

    def __init__(
        self,
        total: int,
        *,
        name: str,
        clock: Callable[[], float],
        rng: random.Random,
        on_decision: Callable[[Record], None],
    ) -> None:
        """``name`` is that of the setting."""
        super().__init__(total, clock=clock, rng=rng)
        self._name = name
        self._seeds = rng
        self._on_decision = on_decision

    def try_take(self, units: int = 1) -> float | None:
        """As ``Limit.try_take``."""
        usage, seed = self.usage, self._seeds.getrandbits(SEED_BITS)
        refusal_s = usage.refusal_s(units, random.Random(seed))
        if refusal_s is None:
            self.in_use += units
        self._on_decision(
            {
                "kind": "limit",
                "limit": self._name,
                "usage": asdict(usage),
                "units": units,
                "seed": seed,
                "outcome": refusal_s,
            }
        )
        return refusal_s


def limit_again(record: Record) -> float | None:
    """The answer that was told, made again."""
    return Usage(**record["usage"]).refusal_s(record["units"], random.Random(record["seed"]))
