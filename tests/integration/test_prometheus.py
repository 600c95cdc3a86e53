"""Prometheus itself, with the rules of deploy/, scrapes a gateway and a worker while more is asked than fits."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from deploy.dashboards import ALL
from deploy.panels import prometheus
from deploy.panels import shown as panels_shown
from tests.fakes.collector import collecting
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_request
from tests.fakes.running_prometheus import Prometheus, running_prometheus
from tests.fakes.running_worker import running_worker
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.metadata import TENANT
from worker.config import WorkerSettings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed: make system-tools"),
]

_DEPLOY = Path(__file__).parents[2] / "deploy"
_RULES = _DEPLOY / "telemetry/rules.yaml"
_TTFT = "gen_ai_client_operation_time_to_first_chunk_seconds_bucket"
_CALLS_AT_ONCE = 16
# Small enough that the load below does not fit.
_WORKER = WorkerSettings(
    engine="sim", listen="127.0.0.1:0", admin_listen="127.0.0.1:0", drain_grace_s=5, kv_block_count=40
)
# What has no data in a system that is well, by a part of the query that tells it.
_SILENT = {
    "tidegate_calibration_drift": "needs a checkpoint with a manifest and a hundred requests",
}


def _queries() -> Iterator[Any]:
    """Of all panels and recording rules, as Grafana would send them, and what scales workers."""
    for uid, (_, rows) in ALL.items():
        for charts in rows.values():
            for chart in charts:
                for number, (expression, _) in enumerate(chart.queries):
                    query = expression.replace("$__rate_interval", "1m")
                    yield pytest.param(query, id=f"{uid}-{chart.title}-{number}")
    for name in _recorded():
        yield pytest.param(name, id=name)
    adapter = yaml.safe_load((_DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text(encoding="utf-8"))
    yield pytest.param(adapter["rules"]["external"][0]["metricsQuery"], id="prometheus-adapter")


def _recorded() -> list[str]:
    groups = yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]
    return [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]


_QUERIES = tuple(_queries())


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What Prometheus knew while the load was on."""

    answers: Mapping[str, Sequence[Mapping[str, Any]]]
    scraped: Sequence[Mapping[str, Any]]
    rules: Mapping[str, Mapping[str, Any]]
    exemplar_traces: set[str]
    sent_traces: set[str]
    who_is_refused: Mapping[str, Sequence[str]]


async def _ask(gateway: RunningGateway, number: int) -> None:
    """Ask again and again, for one of two tenants."""
    is_batch = bool(number % 3)
    request = text_request("word " * 30, model="sim", max_output_tokens=32)
    request.criticality = generation_pb2.CRITICALITY_SHEDDABLE if is_batch else generation_pb2.CRITICALITY_CRITICAL
    metadata = ((TENANT, "batch" if is_batch else "search"),)
    while True:
        await gateway.generate(request, metadata=metadata, timeout=PATIENCE_S)


async def _answers(prometheus: Prometheus) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The first answer to each query."""
    answers: dict[str, Sequence[Mapping[str, Any]]] = {}
    awaited = [param.values[0] for param in _QUERIES]
    end = time.monotonic() + 3 * PATIENCE_S  # many queries, and a scrape may fail that comes late
    while (missing := [query for query in awaited if not answers.get(query)]) and time.monotonic() < end:
        if all(any(name in query for name in _SILENT) for query in missing):
            break
        for query in missing:
            answers[query] = await prometheus.query(query)
        await asyncio.sleep(0.5)
    return answers


def _row(address: str, title: str) -> Mapping[str, Sequence[str]]:
    """What ``deploy.panels`` prints of a row: the names of the series, the largest first, by the panel's title."""
    panels: dict[str, list[str]] = {}
    for line in panels_shown(prometheus(address), title):
        if line.startswith("    "):
            panels[next(reversed(panels))].append(line.split("  ")[-1].strip())
        elif line.startswith("  "):
            panels[line.partition(".")[0].strip()] = []
    return panels


async def _who_is_refused(running: Prometheus) -> Mapping[str, Sequence[str]]:
    """That row, once its last panel knows of the tenant: a quantile needs an increase that Prometheus has seen."""
    while True:
        row = await asyncio.to_thread(_row, f"http://{running.address}", "who is refused")
        if "batch" in row["Told to retry after"]:
            return row
        await asyncio.sleep(0.5)


async def _exemplars(prometheus: Prometheus) -> set[str]:
    """The traces to which the time to first token points."""
    now = time.time()
    found = await prometheus.read("query_exemplars", query=_TTFT, start=f"{now - 120}", end=f"{now + 1}")
    return {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Everything runs once, for all tests here."""
    async with collecting() as collector:
        of_gateway, of_worker = collector.telemetry("gateway"), collector.telemetry("worker")
        async with (
            running_worker(_WORKER, telemetry=of_worker) as worker,
            running_gateway(
                worker.worker.address,
                telemetry=of_gateway,
                admin_listen="127.0.0.1:0",
                trust_tenant_metadata=True,
                max_wait_s=1.5,
            ) as gateway,
            running_prometheus(
                tmp_path_factory.mktemp("prometheus"),
                {"tidegate-gateway": gateway.gateway.admin_address, "tidegate-worker": worker.worker.admin_address},
                interval="1s",
            ) as prometheus,
        ):
            load = [asyncio.create_task(_ask(gateway, number)) for number in range(_CALLS_AT_ONCE)]
            answers = await _answers(prometheus)
            rules = (await prometheus.read("rules"))["groups"]
            scraped = await prometheus.query("max_over_time(up[5m])")
            exemplars = await _exemplars(prometheus)
            who_is_refused = await _who_is_refused(prometheus)
            for task in load:
                task.cancel()
            await asyncio.wait(load)
        for telemetry in (of_gateway, of_worker):
            await asyncio.to_thread(telemetry.shutdown)
        return Seen(
            answers=answers,
            scraped=scraped,
            rules={rule["name"]: rule for group in rules for rule in group["rules"]},
            exemplar_traces=exemplars,
            sent_traces={span.span.trace_id.hex() for span in collector.spans},
            who_is_refused=who_is_refused,
        )


async def test_both_services_are_scraped(seen: Seen) -> None:
    """Under load, too."""
    up = {series["metric"]["job"]: series["value"][1] for series in seen.scraped}
    assert {"tidegate-gateway": "1", "tidegate-worker": "1"} == up


@pytest.mark.parametrize("query", _QUERIES)
async def test_a_query_has_an_answer(seen: Seen, query: str) -> None:
    """Each panel and each recorded rule shows something, or it is said why not."""
    is_silent = any(name in query for name in _SILENT)
    assert is_silent != bool(seen.answers[query])


async def test_every_rule_is_evaluated(seen: Seen) -> None:
    """Without an error; and nobody is alarmed by a few seconds of overload."""
    groups = yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]
    names = {rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]}
    assert dict.fromkeys(names, "ok") == {name: rule["health"] for name, rule in seen.rules.items()}
    assert [] == [name for name, rule in seen.rules.items() if rule.get("state") == "firing"]


async def test_it_shows_who_is_refused_and_why(seen: Seen) -> None:
    """The tenant that can be shed is, by a reason of the error reference."""
    by_tenant = seen.answers["sum by (tidegate_tenant) (rate(tidegate_refusals_total[1m]))"]
    by_reason = seen.answers["sum by (error_type) (rate(tidegate_refusals_total[1m]))"]
    assert "batch" in {series["metric"]["tidegate_tenant"] for series in by_tenant}
    reasons = {series["metric"]["error_type"] for series in by_reason}
    text = (Path(__file__).parents[2] / "docs/errors.md").read_text(encoding="utf-8")
    assert reasons <= set(re.findall(r"`([A-Z_]+)`", text))


async def test_the_panels_answer_the_overload_scenarios_questions(seen: Seen) -> None:
    """Who is shed, why, and when to retry, in a terminal as in a Grafana (docs/overload-scenario.md)."""
    told = seen.who_is_refused
    assert "batch" in told["Refusals by tenant"]
    assert told["Refusals by reason"]
    assert "batch" in told["Told to retry after"]


async def test_an_exemplar_leads_to_its_trace(seen: Seen) -> None:
    """Prometheus has the trace ids of slow first tokens, and the collector has those traces."""
    assert seen.exemplar_traces
    assert set() == seen.exemplar_traces - seen.sent_traces
