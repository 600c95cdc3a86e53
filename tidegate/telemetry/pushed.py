"""Instruments of OpenTelemetry's SDK, for metrics that are pushed to a collector.

How these are to be aggregated is said by variables of the operator's, all of which the SDK knows. It takes some ten
microseconds for a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial


class Pushed:
    """A counter or a histogram."""

    def __init__(self, take: Callable[..., None]) -> None:
        """``take`` is its method that takes an amount and ``attributes``."""
        self._take = take

    def under(self, attributes: Mapping[str, str]) -> PushedSeries:
        """What takes values under these attributes."""
        return PushedSeries(partial(self._take, attributes=attributes))


class PushedSeries:
    """A counter, and a histogram, under one set of attributes."""

    def __init__(self, take: Callable[[float], None]) -> None:
        self.add = self.record = take
