"""Which traces are recorded, as OpenTelemetry's variables say. Pure but for reading them."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG

from tidegate.telemetry.trace_context import TraceContext

_LOGGER = logging.getLogger(__name__)

_DEFAULT = "parentbased_always_on"
_PARENT_BASED = "parentbased_"
_LOW_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Records a share of the traces that begin here; of others, what the caller says where ``is_parent_heard``."""

    share: float
    is_parent_heard: bool

    def is_sampled(self, trace_id: bytes, caller: TraceContext | None) -> bool:
        """Whether a trace is recorded. By its id, so that all who record the same share record the same traces."""
        if caller is not None and self.is_parent_heard:
            return caller.is_sampled
        if self.share in (0.0, 1.0):
            return self.share == 1.0
        return int.from_bytes(trace_id[-_LOW_BYTES:], "big") < round(self.share * (1 << 8 * _LOW_BYTES))


def sampler_of_environment() -> Sampler:
    """What OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say; all traces, and the caller heard, when they do not."""
    name = os.environ.get(OTEL_TRACES_SAMPLER, _DEFAULT).strip().lower()
    kind = name.removeprefix(_PARENT_BASED)
    if kind not in ("always_on", "always_off", "traceidratio"):
        _LOGGER.warning("%s=%s is not known: %s", OTEL_TRACES_SAMPLER, name, _DEFAULT)
        return Sampler(share=1.0, is_parent_heard=True)
    share = _share() if kind == "traceidratio" else float(kind == "always_on")
    return Sampler(share=share, is_parent_heard=name != kind)


def _share() -> float:
    text = os.environ.get(OTEL_TRACES_SAMPLER_ARG, "")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        _LOGGER.warning("%s=%s is no share from 0 to 1: all traces are recorded", OTEL_TRACES_SAMPLER_ARG, text)
        return 1.0
    return share
