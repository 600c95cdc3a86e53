"""A gateway or a worker whose way of tracing ``bench.tracing`` changes while it runs.

    python -m bench.tracing_service COLLECTOR gateway|worker FLAGS...

All of it is the product's but one object, which hands the beginning of a call to one of several tracers. A signal says
to which: SIGRTMIN and those after it, in the order of ``WAYS``. So that all ways are measured in one process, where
memory, caches and the core are the same for all. What is switched is spans; the metrics are always such as give
exemplars of sampled traces.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from opentelemetry.sdk.resources import Resource

import gateway.process
import worker.__main__
from gateway.__main__ import main as gateway_main
from tidegate.telemetry.otlp_sender import OtlpSender
from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.setup import Telemetry, setup
from tidegate.telemetry.span_export import SpanExport
from tidegate.telemetry.spans import Form, NoTracer, RecordingTracer, Tracer
from tidegate.telemetry.trace_context import TraceContext

UNTRACED, AGAIN, UNSAMPLED, ALL, DEAD = WAYS = (
    "no tracing",
    "no tracing, again",
    "0 % sampled",
    "100 %, collector alive",
    "100 %, collector dead",
)
# Nobody listens there.
_NOWHERE = "http://127.0.0.1:1"


def signal_of(way: str) -> int:
    """What switches a service to ``way``."""
    return signal.SIGRTMIN + WAYS.index(way)


class Switch:
    """The tracer that is switched. Say what has become of spans so far with each change."""

    def __init__(self, tracers: Mapping[str, Tracer], report: Callable[[str], None]) -> None:
        self._tracer = tracers[UNTRACED]
        self._tracers = tracers
        self._report = report
        for way in WAYS:
            signal.signal(signal_of(way), self._turn)

    def begin(self, form: Form, metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
        """See ``Tracer``."""
        return self._tracer.begin(form, metadata)

    def _turn(self, number: int, frame: object) -> None:
        del frame
        way = WAYS[number - signal.SIGRTMIN]
        self._tracer = self._tracers[way]
        self._report(way)


def switched(service_name: str, *, endpoint: str | None = None, begins_traces: bool = True) -> Telemetry:
    """In place of ``tidegate.telemetry.setup.setup``."""
    telemetry = setup(service_name, endpoint=endpoint, begins_traces=begins_traces)
    alive, dead = telemetry.export, SpanExport(OtlpSender(Resource({"service.name": service_name}), _NOWHERE))
    if alive is None:
        raise ValueError("no collector")
    every, none = (Sampler(share=share, is_parent_heard=True) for share in (float(begins_traces), 0.0))
    untraced = NoTracer()
    tracers: dict[str, Tracer] = {
        UNTRACED: untraced,
        AGAIN: untraced,
        UNSAMPLED: RecordingTracer(none, alive),
        ALL: RecordingTracer(every, alive),
        DEAD: RecordingTracer(every, dead),
    }

    def report(way: str) -> None:
        print(f"{way}: alive {dict(alive.counts)}, dead {dict(dead.counts)}", flush=True)

    return replace(telemetry, tracer=Switch(tracers, report))


def main(arguments: Sequence[str]) -> int:
    """Be one service until SIGTERM."""
    collector, service, *flags = arguments
    flags = [*flags, f"--otlp-endpoint={collector}"]
    if service == "gateway":
        setattr(gateway.process, "setup", switched)  # noqa: B010 - of what it imports, to mypy
        return gateway_main(flags)
    setattr(worker.__main__, "setup", switched)  # noqa: B010
    return worker.__main__.main(flags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
