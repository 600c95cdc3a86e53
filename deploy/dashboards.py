"""The Grafana dashboards, from code: what stands in a panel is a query over metrics of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimePanel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
_WIDTH, _HEIGHT = 8, 8  # of 24 columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One panel: queries by their legends, and a sentence on how to read it. ``worse_above`` colours a figure."""

    title: str
    text: str
    queries: Sequence[tuple[str, str]]  # (PromQL, legend)
    unit: str = "short"
    is_stacked: bool = False
    is_figure: bool = False
    worse_above: float | None = None


def _quantile(share: float, family: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({family}_bucket[$__rate_interval])))"


_CALLS = 'rpc_server_call_duration_seconds_count{job="tidegate-gateway"}'
_SPANS_LOST = 'tidegate_trace_spans_total{tidegate_outcome!="sent"}'
_TTFT = "gen_ai_client_operation_time_to_first_chunk_seconds"

SERVICE: dict[str, tuple[Chart, ...]] = {
    "Is it well?": (
        Chart(
            title="Workers that serve",
            text="As each gateway sees them. 0 is an outage.",
            queries=[('min(sum by (instance) (tidegate_workers{tidegate_state="serving"}))', "")],
            is_figure=True,
        ),
        Chart(
            title="Calls that failed by our fault",
            text="Share of the last 5 minutes. Refusals for want of room are not in it.",
            queries=[("tidegate:call_errors:ratio_rate5m", "")],
            unit="percentunit",
            is_figure=True,
            worse_above=0.001,
        ),
        Chart(
            title="First token, p99",
            text="From arrival at a gateway: validation, queue, routing and prefill together.",
            queries=[(f"max({_quantile(0.99, _TTFT, 'gen_ai_request_model')})", "")],
            unit="s",
            is_figure=True,
            worse_above=2,
        ),
    ),
    "What do clients get?": (
        Chart(
            title="Calls by status",
            text="RESOURCE_EXHAUSTED is a refusal for want of room; UNAVAILABLE that no worker was there.",
            queries=[
                (
                    f"sum by (rpc_response_status_code) (rate({_CALLS}[$__rate_interval]))",
                    "{{rpc_response_status_code}}",
                )
            ],
            unit="reqps",
            is_stacked=True,
        ),
        Chart(
            title="Time to first token",
            text="Click an exemplar to see the trace it came from.",
            queries=[(_quantile(share, _TTFT), f"p{share * 100:.0f}") for share in (0.5, 0.9, 0.99)],
            unit="s",
        ),
        Chart(
            title="Time between tokens",
            text="Mean of each generation; the engine's batch and a slow reader both show here.",
            queries=[
                (
                    _quantile(share, "gen_ai_client_operation_time_per_output_chunk_seconds"),
                    f"p{share * 100:.0f}",
                )
                for share in (0.5, 0.99)
            ],
            unit="s",
        ),
        Chart(
            title="Tokens",
            text="Of finished generations.",
            queries=[
                (
                    "sum by (gen_ai_token_type) (rate(gen_ai_client_token_usage_sum[$__rate_interval]))",
                    "{{gen_ai_token_type}}",
                )
            ],
        ),
        Chart(
            title="Clients that are behind",
            text="They have not read all that is there for them. One that reads nothing for long is ended.",
            queries=[("tidegate_readers_behind", "{{instance}}")],
        ),
        Chart(
            title="Held for clients that are behind",
            text="What they have not read yet. Their KV blocks are held, too.",
            queries=[("tidegate_readers_held_bytes", "{{instance}}")],
            unit="bytes",
        ),
    ),
    "Who is refused, and why?": (
        Chart(
            title="Refusals by tenant",
            text="Who is shed. The reason is beside, and below when they were told to come back.",
            queries=[
                ("sum by (tidegate_tenant) (rate(tidegate_refusals_total[$__rate_interval]))", "{{tidegate_tenant}}")
            ],
            unit="reqps",
            is_stacked=True,
        ),
        Chart(
            title="Refusals by reason",
            text="docs/errors.md says what each means.",
            queries=[("sum by (error_type) (rate(tidegate_refusals_total[$__rate_interval]))", "{{error_type}}")],
            unit="reqps",
            is_stacked=True,
        ),
        Chart(
            title="Refusals by criticality",
            text="Sheddable traffic goes first. Critical traffic here means that too much is critical.",
            queries=[
                (
                    "sum by (tidegate_criticality) (rate(tidegate_refusals_total[$__rate_interval]))",
                    "{{tidegate_criticality}}",
                )
            ],
            unit="reqps",
            is_stacked=True,
        ),
        Chart(
            title="Told to retry after",
            text="What RetryInfo said, median. It follows from the rate at which blocks come free.",
            queries=[
                (_quantile(0.5, "tidegate_refusals_retry_after_seconds", "tidegate_tenant"), "{{tidegate_tenant}}")
            ],
            unit="s",
        ),
        Chart(
            title="Waiting, by tenant",
            text="Generations in the waiting room.",
            queries=[("sum by (tidegate_tenant) (tidegate_queue_requests)", "{{tidegate_tenant}}")],
            is_stacked=True,
        ),
        Chart(
            title="Waiting, by criticality",
            text="Generations in the waiting room.",
            queries=[("sum by (tidegate_criticality) (tidegate_queue_requests)", "{{tidegate_criticality}}")],
            is_stacked=True,
        ),
        Chart(
            title="Time in the waiting room",
            text="By how it ended.",
            queries=[
                (
                    _quantile(0.9, "tidegate_queue_wait_seconds", "tidegate_outcome"),
                    "{{tidegate_outcome}}, p90",
                )
            ],
            unit="s",
        ),
    ),
    "What do gateways do about it?": (
        Chart(
            title="Attempts by outcome",
            text="Failed ones speak against a worker, refused ones only say that it is full.",
            queries=[
                ("sum by (tidegate_outcome) (rate(tidegate_attempts_total[$__rate_interval]))", "{{tidegate_outcome}}")
            ],
            unit="reqps",
            is_stacked=True,
        ),
        Chart(
            title="Open breakers",
            text="Workers that get no traffic on a gateway's own opinion.",
            queries=[
                (
                    'sum by (server_address, tidegate_phase) (tidegate_worker_breaker{tidegate_state="open"})',
                    "{{server_address}} {{tidegate_phase}}",
                )
            ],
        ),
        Chart(
            title="Streams continued elsewhere",
            text="Their worker was lost after the first token.",
            queries=[("sum(rate(tidegate_continuations_total[$__rate_interval]))", "continued")],
            unit="reqps",
        ),
        Chart(
            title="Event loop",
            text="How late timers are. Above 0.1 s a gateway needs a sibling.",
            queries=[("tidegate_event_loop_lag_seconds", "{{job}} {{instance}}")],
            unit="s",
        ),
        Chart(
            title="Calls held",
            text="Of the limit max_in_flight.",
            queries=[("tidegate_calls_in_flight", "{{instance}}"), ("max(tidegate_calls_limit)", "limit")],
        ),
        Chart(
            title="Age of load reports",
            text="Workers report at least once a second. What is older, a gateway reckons with all the same.",
            queries=[("max by (server_address) (tidegate_worker_load_age_seconds)", "{{server_address}}")],
            unit="s",
        ),
        Chart(
            title="Limits broken at the edge",
            text="By peers that do what no honest client does.",
            queries=[
                ("sum by (tidegate_kind) (rate(tidegate_http2_abuse_total[$__rate_interval]))", "{{tidegate_kind}}")
            ],
        ),
    ),
}

ENGINES: dict[str, tuple[Chart, ...]] = {
    "KV cache": (
        Chart(
            title="In use or promised",
            text="At 100 % a worker admits nothing more; that is full use, not a fault.",
            queries=[("tidegate_kv_utilization_ratio", "{{instance}}")],
            unit="percentunit",
        ),
        Chart(
            title="Blocks",
            text="Of all workers. Reserved may be above used: it is what requests are expected to grow to.",
            queries=[("sum by (tidegate_state) (tidegate_kv_blocks)", "{{tidegate_state}}")],
        ),
        Chart(
            title="Preemptions",
            text="Blocks taken back from running requests. Near 0 when the ledger's reservations are right.",
            queries=[("rate(tidegate_engine_preemptions_total[$__rate_interval])", "{{instance}}")],
            unit="reqps",
        ),
        Chart(
            title="Refused for want of blocks",
            text="By a worker. The gateway asks another one, or lets the request wait.",
            queries=[("rate(tidegate_ledger_refusals_total[$__rate_interval])", "{{instance}}")],
            unit="reqps",
        ),
    ),
    "Pace": (
        Chart(
            title="Tokens",
            text="Computed (input) and generated (output).",
            queries=[
                (
                    "sum by (gen_ai_token_type) (rate(tidegate_engine_tokens_total[$__rate_interval]))",
                    "{{gen_ai_token_type}}",
                )
            ],
        ),
        Chart(
            title="Requests inside",
            text="Waiting above a few means that prefill is behind.",
            queries=[
                ("sum by (instance, tidegate_state) (tidegate_engine_requests)", "{{instance}} {{tidegate_state}}")
            ],
        ),
        Chart(
            title="First token on the worker",
            text="Queue inside the engine and prefill.",
            queries=[
                (_quantile(share, "gen_ai_server_time_to_first_token_seconds"), f"p{share * 100:.0f}")
                for share in (0.5, 0.99)
            ],
            unit="s",
        ),
        Chart(
            title="Time between tokens",
            text="Mean of each generation.",
            queries=[
                (_quantile(share, "gen_ai_server_time_per_output_token_seconds"), f"p{share * 100:.0f}")
                for share in (0.5, 0.99)
            ],
            unit="s",
        ),
        Chart(
            title="Age of the engine's step",
            text="Above some seconds the engine hangs.",
            queries=[("tidegate_engine_step_age_seconds", "{{instance}}")],
            unit="s",
        ),
        Chart(
            title="Prompt tokens to compute",
            text="The prefill backlog.",
            queries=[("tidegate_engine_pending_prefill", "{{instance}}")],
        ),
    ),
    "What is served": (
        Chart(
            title="Traffic against calibration",
            text="Population stability index. Under 0.1 the two are alike; over 0.25 calibrate again.",
            queries=[("max by (gen_ai_request_model) (tidegate_calibration_drift)", "{{gen_ai_request_model}}")],
        ),
        Chart(
            title="Output against reservation",
            text="Median of output tokens divided by those reserved. Above 1 requests outgrow their reservations.",
            queries=[(_quantile(0.5, "tidegate_ledger_drift_ratio"), "median")],
        ),
        Chart(
            title="Spans lost",
            text="A collector that is too slow or dead costs spans, not requests.",
            queries=[
                (f"sum by (instance) (rate({_SPANS_LOST}[$__rate_interval]))", "{{instance}}"),
            ],
        ),
    ),
}

ALL = {
    "tidegate-service": ("Tidegate: the service", SERVICE),
    "tidegate-engines": ("Tidegate: the engines", ENGINES),
}


def generated() -> dict[str, str]:
    """Each dashboard's JSON, by its uid."""
    return {uid: _json(uid, title, rows) for uid, (title, rows) in ALL.items()}


def _json(uid: str, title: str, rows: dict[str, tuple[Chart, ...]]) -> str:
    dashboard = (
        Dashboard(title)
        .uid(uid)
        .tags(["tidegate"])
        .refresh("5s")
        .time("now-15m", "now")
        .with_variable(DatasourceVariable("source").type("prometheus").label("Prometheus"))
    )
    for row, charts in rows.items():
        dashboard.with_row(Row(row))
        for chart in charts:
            dashboard.with_panel(_panel(chart))
    return JSONEncoder(sort_keys=True, indent=1).encode(dashboard.build()) + "\n"


def _panel(chart: Chart) -> StatPanel | TimePanel:
    panel = _figure() if chart.is_figure else _curves(is_stacked=chart.is_stacked)
    panel.title(chart.title).description(chart.text).unit(chart.unit).datasource(_SOURCE)
    panel.span(_WIDTH).height(_HEIGHT // 2 if chart.is_figure else _HEIGHT)
    for expression, legend in chart.queries:
        panel.with_target(Dataquery().expr(expression).legend_format(legend).exemplar("_bucket" in expression))
    if chart.worse_above is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=chart.worse_above, color="red")]
        panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return panel


def _figure() -> StatPanel:
    return StatPanel().reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))


def _curves(*, is_stacked: bool) -> TimePanel:
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    panel = TimePanel().legend(legend).tooltip(tooltip)
    if is_stacked:
        panel.stacking(StackingConfig().mode(StackingMode.NORMAL)).draw_style(GraphDrawStyle.LINE).fill_opacity(30)
    return panel
