"""Writes what deploy/ holds of generated files: plain manifests from the chart, dashboards and rules from code.

``python -m deploy.render`` writes them; a contract test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

from deploy import dashboards

ROOT = Path(__file__).parent
_CHART = ROOT / "kubernetes/chart/tidegate"
RULES = "telemetry/rules.yaml"
_MONITORING = "kubernetes/overlays/monitoring"
_HEAD = "# Generated from the chart with its default values (make docs); change that.\n"


def manifests(values: Mapping[str, Any] | None = None, *, name: str = "tidegate") -> dict[str, str]:
    """The chart's templates with ``values``, rendered by Helm; those that come out empty are left out."""
    with helm_python.Chart.load(str(_CHART)) as chart:
        rendered = chart.render(dict(values or {}), name=name, namespace="default")
    files = {Path(path).name: text for path, text in rendered.items() if path.endswith(".yaml")}
    return {name: text for name, text in files.items() if text.strip()}


def generated() -> dict[str, str]:
    """All generated files by their path under deploy/."""
    base = manifests()
    monitored = manifests({"serviceMonitor": {"enabled": True}})
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(base),
    }
    return {
        **{f"kubernetes/base/{name}": _HEAD + _plain(text) for name, text in base.items()},
        "kubernetes/base/kustomization.yaml": _HEAD + _dump(kustomization),
        f"{_MONITORING}/service-monitor.yaml": _HEAD + _plain(monitored["service-monitor.yaml"]),
        f"{_MONITORING}/prometheus-rule.yaml": _HEAD.replace("the chart with its default values", RULES)
        + _dump(_rule()),
        **{f"telemetry/dashboards/{name}.json": text for name, text in dashboards.generated().items()},
    }


def _rule() -> dict[str, Any]:
    """The rules as the operator of Prometheus takes them."""
    spec = yaml.safe_load((ROOT / RULES).read_text(encoding="utf-8"))
    metadata = {"name": "tidegate", "labels": {"app.kubernetes.io/part-of": "tidegate"}}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": spec}


def _plain(text: str) -> str:
    """Without Helm's comments, in one form."""
    return "---\n".join(_dump(document) for document in yaml.safe_load_all(text) if document)


def _dump(document: object) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, width=120)
    return text


if __name__ == "__main__":
    for path, content in generated().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(content, encoding="utf-8")
