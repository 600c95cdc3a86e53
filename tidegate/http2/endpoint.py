"""What all connections of one server, or of one client, have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from tidegate.http2.limits import AbuseTally, Limits


class Role(Enum):
    """Which side of a connection we are."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """``clock`` gives seconds; ``tally`` counts the abuse that was seen, for metrics."""

    role: Role
    clock: Callable[[], float]
    limits: Limits = field(default_factory=Limits)
    tally: AbuseTally = field(default_factory=AbuseTally)

    @property
    def is_client(self) -> bool:
        """Whether we open the streams."""
        return self.role is Role.CLIENT
