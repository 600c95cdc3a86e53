"""What OpenTelemetry's variables say of exporters, where its own ones do not read them, or end in a traceback.

What cannot be used is told in the log and is as good as not set, as OpenTelemetry has it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from grpc import Compression
from opentelemetry.sdk.environment_variables import OTEL_METRIC_EXPORT_INTERVAL, OTEL_SDK_DISABLED

_LOGGER = logging.getLogger(__name__)

Signal = Literal["TRACES", "METRICS"]

_EXPORTERS: Final = {"TRACES": ("otlp", "none"), "METRICS": ("otlp", "prometheus", "none")}
_COMPRESSIONS: Final = {"none": Compression.NoCompression, "gzip": Compression.Gzip}
_TIMEOUT_S: Final = 10.0
_INTERVAL_MS: Final = 60_000.0


class UnusableExporterError(Exception):
    """OpenTelemetry's exporter cannot be made as it is asked for. The message says why."""


def is_disabled() -> bool:
    """Whether nothing is to be sent to anybody, whatever other variables say."""
    return _text(OTEL_SDK_DISABLED) == "true"


def is_sent(signal: Signal, *, default: bool) -> bool:
    """Whether it goes to a collector by OTLP. Metrics can be had from the admin port in any case."""
    variable, known = f"OTEL_{signal}_EXPORTER", _EXPORTERS[signal]
    asked = [name.strip() for name in _text(variable).split(",") if name.strip()]
    for name in asked:
        if name not in known:
            _LOGGER.warning("%s: %s is not known, of %s", variable, name, ", ".join(known))
    usable = [name for name in asked if name in known]
    return "otlp" in usable if usable else default


def check_protocol(signal: Signal) -> None:
    """Warn where another one is asked for than the only one there is."""
    for variable in _variables(signal, "PROTOCOL"):
        if text := _text(variable):
            if text != "grpc":
                _LOGGER.warning("%s=%s is not known: grpc", variable, text)
            return


def compression(signal: Signal) -> Compression:
    """Of what is sent."""
    for variable in _variables(signal, "COMPRESSION"):
        if text := _text(variable):
            if text in _COMPRESSIONS:
                return _COMPRESSIONS[text]
            _LOGGER.warning("%s=%s is not known, of %s", variable, text, ", ".join(_COMPRESSIONS))
    return Compression.NoCompression


def timeout_s(signal: Signal) -> float:
    """How long a batch is tried."""
    return _number(*_variables(signal, "TIMEOUT"), default=_TIMEOUT_S)


def interval_ms() -> float:
    """Between two sendings of metrics."""
    return _number(OTEL_METRIC_EXPORT_INTERVAL, default=_INTERVAL_MS)


@contextmanager
def making_exporter(signal: Signal) -> Iterator[None]:
    """Around what makes an exporter that is given its timeout. Raises ``UnusableExporterError``.

    It reads the variable all the same, and takes it for a number.
    """
    variable, _ = _variables(signal, "TIMEOUT")
    hidden = os.environ.pop(variable, None)
    try:
        yield
    except Exception as error:
        raise UnusableExporterError(f"no exporter of {signal.lower()} can be made: {error}") from error
    finally:
        if hidden is not None:
            os.environ[variable] = hidden


def _variables(signal: Signal, what: str) -> tuple[str, str]:
    """The first one that is set counts."""
    return f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"


def _text(variable: str) -> str:
    """An empty one is as good as none."""
    return os.environ.get(variable, "").strip().lower()


def _number(*variables: str, default: float) -> float:
    for variable in variables:
        if text := _text(variable):
            try:
                number = float(text)
            except ValueError:
                number = 0.0
            if 0 < number < math.inf:
                return number
            _LOGGER.warning("%s=%s is no number above 0", variable, text)
    return default
