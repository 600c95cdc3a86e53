from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards import ALL
from gateway.errors import ERROR_TABLE
from tests.fakes.patience import PATIENCE_S
from tidegate.inference.v1.error_reason_pb2 import ErrorReason
from tidegate.telemetry import catalogue
from tidegate.telemetry.metric import prometheus_label

_ROOT = Path(__file__).parents[2]
_TELEMETRY = _ROOT / "deploy/telemetry"

# Prometheus's own.
_OTHERS = {"up": {"job", "instance"}}
_PROMQL = frozenset(
    re.findall(r"\w+", "and bool by histogram_quantile max max_over_time min min_over_time on or rate sum vector")
)
_TARGET_LABELS = {"job", "instance", "le"}


def rules() -> list[dict[str, Any]]:
    """All rules."""
    groups = yaml.safe_load((_TELEMETRY / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[str]:
    """The names of the alerts."""
    return [rule["alert"] for rule in rules() if "alert" in rule]


def adapter_rule() -> dict[str, Any]:
    """What the autoscaler of workers is given by Prometheus's adapter."""
    values = yaml.safe_load((_ROOT / "deploy/kubernetes/prometheus-adapter.yaml").read_text(encoding="utf-8"))
    (rule,) = values["rules"]["external"]
    return dict(rule)


def known_series() -> dict[str, set[str]]:
    """Every name that a query may use, with its labels."""
    known: dict[str, set[str]] = dict(_OTHERS)
    for metric in (*catalogue.GATEWAY, *catalogue.WORKER):
        labels = {prometheus_label(attribute) for attribute in metric.attributes}
        known |= dict.fromkeys(metric.prometheus_series, labels)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    every_label = {label for labels in known.values() for label in labels}
    return known | dict.fromkeys(recorded, every_label)


def queries() -> Iterator[Any]:
    """All expressions of dashboards, rules and the adapter."""
    for uid, (_, rows) in ALL.items():
        for charts in rows.values():
            for chart in charts:
                for number, (expression, _) in enumerate(chart.queries):
                    yield pytest.param(expression, id=f"{uid}-{chart.title}-{number}")
    yield pytest.param(adapter_rule()["metricsQuery"], id="prometheus-adapter")
    for rule in rules():
        yield pytest.param(rule["expr"], id=rule.get("alert") or rule["record"])


@pytest.mark.parametrize("query", tuple(queries()))
def test_a_query_names_what_exists(query: str) -> None:
    """Each metric is in the catalogue, and has the labels that the query uses."""
    known = known_series()
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", query)
    grouped: set[str] = {label.strip() for found in re.findall(r"\bby \(([^)]*)\)", bare) for label in found.split(",")}
    matched = re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", bare)
    names = set(re.findall(r"[a-zA-Z_:][\w:]*", re.sub(r"\{[^}]*\}|\bby \([^)]*\)", "", bare))) - _PROMQL
    assert set() == names - set(known)
    for name, matchers in matched:
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert set() == labels - known[name] - _TARGET_LABELS
    labels_of_names = {label for name in names for label in known[name]}
    assert set() == grouped - labels_of_names - _TARGET_LABELS


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_has_a_runbook(alert: str) -> None:
    """It says what clients see, where to look and what to do."""
    (rule,) = [rule for rule in rules() if rule.get("alert") == alert]
    assert f"docs/runbooks/{alert}.md" == rule["annotations"]["runbook"]
    text = (_ROOT / rule["annotations"]["runbook"]).read_text(encoding="utf-8")
    assert text.startswith(f"# {alert}\n")
    for part in ("**What it says.**", "**What clients see.**", "## Look", "## Do"):
        assert part in text
    assert rule["labels"]["severity"] in {"page", "ticket"}


def test_there_is_no_runbook_without_its_alert() -> None:
    """Or it would be looked for in vain."""
    assert sorted(alerts()) == sorted(path.stem for path in (_ROOT / "docs/runbooks").glob("*.md"))


def test_a_tenant_counts_as_shed_for_every_reason_there_is() -> None:
    """All refusals for want of room or quota, and no other."""
    (rule,) = [rule for rule in rules() if rule.get("alert") == "TidegateTenantShed"]
    (named,) = re.findall(r'error_type=~"([^"]*)"', rule["expr"])
    refused = [error for error, spec in ERROR_TABLE.items() if spec.code is grpc.StatusCode.RESOURCE_EXHAUSTED]
    reasons = {ErrorReason.Name(ERROR_TABLE[error].reason).removeprefix("ERROR_REASON_") for error in refused}
    assert reasons == set(named.split("|"))


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_is_tested_firing_and_silent(alert: str) -> None:
    """In what promtool runs."""
    tests = yaml.safe_load((_TELEMETRY / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert]
    assert {True, False} == {bool(case.get("exp_alerts")) for case in cases}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
@pytest.mark.parametrize("arguments", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")])
def test_promtool_finds_the_rules_good(arguments: tuple[str, ...]) -> None:
    """Prometheus's own tool evaluates every rule."""
    done = subprocess.run(
        ["promtool", *arguments], cwd=_TELEMETRY, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert 0 == done.returncode, done.stdout.decode() + done.stderr.decode()


def lost(written: Any, read: Any, path: str = "") -> list[str]:
    """Where ``read`` has not what ``written`` has."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [place for key, value in written.items() for place in lost(value, read.get(key), f"{path}/{key}")]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        pairs = enumerate(zip(written, read, strict=True))
        return [place for index, (one, other) in pairs for place in lost(one, other, f"{path}/{index}")]
    return [] if written == read else [path]


@pytest.mark.parametrize("uid", ALL)
def test_a_dashboard_is_one_that_grafana_knows(uid: str) -> None:
    """Read by the models that are made of Grafana's own schema, nothing is lost."""
    dashboard = json.loads((_TELEMETRY / f"dashboards/{uid}.json").read_text(encoding="utf-8"))
    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    assert [] == lost(dashboard, read)
    assert (uid, True) == (dashboard["uid"], dashboard["schemaVersion"] >= 36)


@pytest.mark.parametrize("uid", ALL)
def test_a_panel_says_what_it_shows(uid: str) -> None:
    """It has a source that can be chosen, a query and a text, and lies inside the page."""
    dashboard = json.loads((_TELEMETRY / f"dashboards/{uid}.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        assert "${source}" == panel["datasource"]["uid"]
        assert all(target["expr"] for target in panel["targets"])
        assert panel["description"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
