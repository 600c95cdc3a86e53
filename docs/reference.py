"""Writes docs/configuration.md and docs/telemetry.md from the settings and the catalogue: ``python -m docs.reference``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from gateway.config import GatewaySettings
from tidegate.telemetry import catalogue, conventions
from tidegate.telemetry.metric import Metric
from worker.config import WorkerSettings

_DOCS = Path(__file__).parent
_NOTE = "<!-- Written by make docs; do not edit. -->\n"

_CONFIGURATION = """# Configuration

{note}
Settings of `python -m gateway` and `python -m worker`: a flag (`--max-in-flight 10`) goes over the environment
(`TIDEGATE_GATEWAY_MAX_IN_FLIGHT=10`), that over a TOML file (`--config FILE`, `max_in_flight = 10`), that over the
default. Unknown keys are errors. A table is `[tenants.NAME]` in a file, and a JSON object elsewhere (`--tenants
'{{"NAME": {{"weight": 2}}}}'`). `--print-config` shows the result. Of OpenTelemetry's own variables (`OTEL_...`) those are
obeyed that stand in [telemetry.md](telemetry.md).

Exit codes: 0 after a shutdown; 1 where an address, a file or the engine could not be had, or the engine died; 2 for
settings that cannot be used. Where nothing else restarts a worker (no Kubernetes, no systemd), `python -m worker
--supervise` does, whenever its engine has died; after five deaths in a row, each within a minute, it gives up with 3.

## Gateway: `TIDEGATE_GATEWAY_...`

{gateway}
## Worker: `TIDEGATE_WORKER_...`

{worker}"""

_TELEMETRY = """# Telemetry

{note}
Names follow OpenTelemetry's semantic conventions {version} (GenAI: in development; RPC: release candidate), pinned in
`tidegate/telemetry/conventions.py`; ours begin with `tidegate`. A test compares them with the conventions' own package.

## Traces

Spans go by OTLP over gRPC to `--otlp-endpoint` or to where `OTEL_EXPORTER_OTLP_ENDPOINT` says; without either nothing
is recorded, and the caller's W3C context travels on all the same. `OTEL_TRACES_SAMPLER` (always_on, always_off,
traceidratio, and each with parentbased_) samples. Traces begin at the gateway: a worker records what its gateway does,
unless its own sampler hears no parent (always_on, traceidratio). `OTEL_BSP_MAX_QUEUE_SIZE`, `_MAX_EXPORT_BATCH_SIZE`
and `_SCHEDULE_DELAY` bound what waits for the collector. `OTEL_TRACES_EXPORTER=none` and `OTEL_SDK_DISABLED=true` end
all that; `OTEL_EXPORTER_OTLP_COMPRESSION` is gzip or none. A value that cannot be used is logged and as good as not set;
an endpoint or a certificate that cannot be used ends the start with 2. No span holds what was asked or answered.

A collector that is dead or too slow costs spans and next to nothing else: while the queue is full no further call is
recorded, a batch is tried for ten seconds (`OTEL_EXPORTER_OTLP_TIMEOUT`, in seconds), and between batches that failed
there are pauses of up to half a minute. `tidegate_trace_spans_total` counts what was lost.
[Benchmarks](benchmarks.md#tracing) has what tracing costs.

| span | service | kind | what it covers | attributes of its own |
|---|---|---|---|---|
| `tidegate.inference.v1.InferenceService/Generate` | gateway | server | the call | `tidegate.outcome`, `tidegate.tenant`, `tidegate.criticality`, `tidegate.attempts`, `tidegate.queue.waited_s`, `gen_ai.usage.output_tokens`, `rpc.response.status_code` |
| `validate` | gateway | internal | validation, rendering, tokenising; the wait for a thread | `error.type` |
| `queue` | gateway | internal | the waiting room; once more after each attempt that failed | `error.type` |
| `route` | gateway | internal | the choice of a worker, as a decision record | `server.address`, `tidegate.route.predicted_first_token_s`, `tidegate.route.available_blocks`, `tidegate.route.load_age_s`; of the eight best that could have been taken, `tidegate.route.candidates` and `tidegate.route.candidates.predicted_first_token_s` |
| `continuation` | gateway | internal | after a worker was lost: the wait for one that goes on | `error.type` |
| `chat MODEL`, `text_completion MODEL` | gateway | client | one attempt on one worker | `tidegate.attempt.number`, `.outcome`, `.continued_tokens`, `gen_ai.usage.*`, `gen_ai.response.finish_reasons`, `server.address`, `error.type` |
| `tidegate.worker.v1.WorkerService/Generate` | worker | server | the call on the worker | `gen_ai.usage.*`, `gen_ai.response.finish_reasons`, `rpc.response.status_code` |
| `engine.queued`, `engine.prefill`, `engine.decode` | worker | internal | the engine's phases, by its own request timestamps; of a generation that was cut short, as seen from outside | `tidegate.phase`, `tidegate.phase.is_measured` |

For tail sampling: `error.type`, `tidegate.outcome` and the duration of the first span; `deploy/compose/collector.yaml`
has an example.

## Metrics

At `http://ADMIN/metrics` (gateway 127.0.0.1:9464, worker 127.0.0.1:9465; `--admin-listen`), in Prometheus' and
OpenMetrics' form; latencies carry exemplars where calls are traced. `OTEL_METRICS_EXPORTER=otlp` sends them to the
collector as well, every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds; `OTEL_SDK_DISABLED=true` sends nothing to anybody,
and leaves this port as it is. Beside ours there are those of the process (`process_...`, `python_...`), and on a worker with vLLM
all of its own (`vllm:...`).

An endpoint picker of the Gateway API inference extension finds vLLM's names there, and for any engine ours:
TotalQueuedRequests is `tidegate_engine_requests{{tidegate_state="waiting"}}`, TotalRunningRequests
`tidegate_engine_requests{{tidegate_state="running"}}`, KVCacheUtilization `tidegate_kv_utilization_ratio`. The protocol
also asks for OpenAI's HTTP API, which a worker does not have: compatible are the metrics.

### Gateway

{gateway}
### Worker

{worker}"""


def generated() -> dict[str, str]:
    """The files by name."""
    return {
        "configuration.md": _CONFIGURATION.format(
            note=_NOTE, gateway=_settings(GatewaySettings), worker=_settings(WorkerSettings)
        ),
        "telemetry.md": _TELEMETRY.format(
            note=_NOTE,
            version=conventions.SEMCONV_VERSION,
            gateway=_metrics(catalogue.GATEWAY),
            worker=_metrics(catalogue.WORKER),
        ),
    }


def _settings(settings: type[BaseSettings]) -> str:
    rows = (
        (f"`{name}`", _default(field), (field.description or "").replace("\n", " "))
        for name, field in settings.model_fields.items()
    )
    return _table(("setting", "default", "meaning"), rows)


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None else f"`{value}`" if value not in ("", (), {}) else "empty"


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = (
        (
            f"`{metric.prometheus_series[0].removesuffix('_bucket')}`",
            metric.kind.value.removeprefix("observed "),
            ", ".join(f"`{attribute}`" for attribute in metric.attributes),
            metric.description,
        )
        for metric in metrics
    )
    return _table(("Prometheus name", "kind", "attributes", "what it tells"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    for name, content in generated().items():
        (_DOCS / name).write_text(content, encoding="utf-8")
