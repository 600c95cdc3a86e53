"""What a metric is, before anything is measured: its names, unit, attributes and buckets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a metric gets its value. The observed ones are read when somebody collects, and cost nothing before."""

    HISTOGRAM = "histogram"
    COUNTER = "counter"
    OBSERVED_COUNTER = "observed counter"
    OBSERVED_GAUGE = "observed gauge"


# What Prometheus appends for a unit. Units in braces count things and append nothing.
_SUFFIXES = {"s": "_seconds", "By": "_bytes", "1": "_ratio", "{token}/s": "_tokens_per_second"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. ``attributes`` are all that its points may carry; each has few values."""

    name: str  # as in OTLP
    kind: Kind
    unit: str  # UCUM
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets):
            raise ValueError(f"{self.name}: histograms, and they alone, have buckets")

    @property
    def prometheus_name(self) -> str:
        """The name of the family on a Prometheus endpoint."""
        return prometheus_name(self.name, self.unit)

    @property
    def prometheus_series(self) -> tuple[str, ...]:
        """The names that a query may use."""
        family = self.prometheus_name
        if self.kind is Kind.HISTOGRAM:
            return (f"{family}_bucket", f"{family}_count", f"{family}_sum")
        is_counter = self.kind in (Kind.COUNTER, Kind.OBSERVED_COUNTER)
        return (f"{family}_total",) if is_counter else (family,)


def prometheus_name(name: str, unit: str) -> str:
    """What OpenTelemetry's rules for Prometheus make of a name and its unit, less the ``_total`` of a counter."""
    family = prometheus_label(name)
    suffix = _SUFFIXES.get(unit, "")
    return family if family.endswith(suffix) else family + suffix


def prometheus_label(attribute: str) -> str:
    """The label that stands for an attribute."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)
