"""Criticality on the wire, and as a rank: 0 is the most critical."""

from __future__ import annotations

from gateway.policy.waiter import CLASS_COUNT
from tidegate.inference.v1 import generation_pb2


def rank_of(criticality: int) -> int:
    """The place of a criticality among all. A value that is not known is the least."""
    return min(max(0, criticality - generation_pb2.CRITICALITY_CRITICAL_PLUS), CLASS_COUNT - 1)


def criticality_of(rank: int) -> generation_pb2.Criticality.ValueType:
    """The one of that place."""
    return generation_pb2.Criticality.values()[rank + generation_pb2.CRITICALITY_CRITICAL_PLUS]
