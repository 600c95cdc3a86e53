from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.render import generated, manifests
from gateway.config import GatewaySettings
from tests.fakes.patience import PATIENCE_S
from worker.config import WorkerSettings

_ROOT = Path(__file__).parents[2]
_DEPLOY = _ROOT / "deploy"
_KUBERNETES = "1.33"
_CUSTOM = {"ServiceMonitor", "PrometheusRule", "LeaderWorkerSet", "RayCluster"}
_BIN = Path(sys.executable).parent

_VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sim": {"worker": {"gpus": 0, "modelsClaim": "", "settings": {"engine": "sim"}, "tolerations": []}},
    "all": {
        "otlpEndpoint": "http://collector:4317",
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "gateway": {
            "autoscaling": {"enabled": False},
            "settings": {
                "prepare_backlog_bytes": 33554432,
                "tenants": {"batch": {"weight": 2.5, "tokens_per_minute": 60000}},
            },
        },
        "worker": {"autoscaling": {"enabled": True}, "nodeSelector": {"gpu": "h200"}},
    },
}


def documents(text: str) -> list[dict[str, Any]]:
    """The manifests in a YAML file."""
    return [document for document in yaml.safe_load_all(text) if document]


def rendered(name: str) -> list[dict[str, Any]]:
    """What Helm makes of the chart with one of ``_VALUES``."""
    return [document for text in manifests(_VALUES[name]).values() for document in documents(text)]


def kustomized(folder: str) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    command = [str(_BIN / "kubectl"), "kustomize", str(_DEPLOY / "kubernetes" / folder)]
    return documents(subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S).stdout.decode())


def pod_specs(node: Any) -> Iterator[dict[str, Any]]:
    """All pod specs below ``node``, those of custom resources too."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for child in node.values():
            yield from pod_specs(child)
    elif isinstance(node, list):
        for child in node:
            yield from pod_specs(child)


def check(manifest: dict[str, Any]) -> None:
    """Raise what Kubernetes would say. Of a custom resource, its pods are checked."""
    if manifest["kind"] not in _CUSTOM:
        kubernetes_validate.validate(manifest, _KUBERNETES, strict=True)
    for spec in pod_specs(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        kubernetes_validate.validate(pod, _KUBERNETES, strict=True)


def all_manifests() -> Iterator[Any]:
    """Every manifest that deploy/ can lead to, with a name for the test."""
    for name in _VALUES:
        for manifest in rendered(name):
            yield pytest.param(manifest, id=f"chart-{name}-{manifest['kind']}-{manifest['metadata']['name']}")
    for folder in ("base", "overlays/sim", "overlays/monitoring"):
        for manifest in kustomized(folder):
            yield pytest.param(manifest, id=f"{folder}-{manifest['kind']}-{manifest['metadata']['name']}")
    for path in sorted((_DEPLOY / "kubernetes/multi-node").glob("*.yaml")):
        for manifest in documents(path.read_text(encoding="utf-8")):
            yield pytest.param(manifest, id=f"{path.name}-{manifest['kind']}")


_MANIFESTS = tuple(all_manifests())


def test_generated_files_are_those_committed() -> None:
    """Make docs writes them."""
    committed = {path: (_DEPLOY / path).read_text(encoding="utf-8") for path in generated()}
    assert generated() == committed


@pytest.mark.parametrize("manifest", _MANIFESTS)
def test_a_manifest_is_valid(manifest: dict[str, Any]) -> None:
    """By Kubernetes' own schema, strictly."""
    check(manifest)


@pytest.mark.parametrize("manifest", _MANIFESTS)
def test_containers_are_confined(manifest: dict[str, Any]) -> None:
    """No root, no writing to the image, no privileges, no token of the cluster; and settings that exist.

    Variables that Kubernetes makes of services' names would be taken for settings.
    """
    for spec in pod_specs(manifest):
        assert not spec["automountServiceAccountToken"]
        assert not spec["enableServiceLinks"]
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert ["ALL"] == container["securityContext"]["capabilities"]["drop"]
            assert set() == unknown_settings([variable["name"] for variable in container.get("env", [])])


@pytest.mark.parametrize("manifest", _MANIFESTS)
def test_a_pod_outlives_its_drain(manifest: dict[str, Any]) -> None:
    """Kubernetes waits longer than the 5 s before SIGTERM and the grace of running streams."""
    for spec in pod_specs(manifest):
        for container in spec["containers"]:
            graces = [int(one["value"]) for one in container.get("env", []) if one["name"].endswith("DRAIN_GRACE_S")]
            for grace_s in graces if "startupProbe" in container else ():  # other nodes of an engine serve nobody
                assert grace_s + 5 < spec["terminationGracePeriodSeconds"]
                assert {"sleep": {"seconds": 5}} == container["lifecycle"]["preStop"]


def multi_node(name: str) -> list[dict[str, Any]]:
    """The manifests of a way to have one engine on several nodes."""
    return documents((_DEPLOY / f"kubernetes/multi-node/{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["leader-worker-set", "ray-cluster"])
def test_nodes_of_an_engine_share_a_token(name: str) -> None:
    """Ray runs what it is sent: each of its processes asks the others for a token, and all have the same one."""
    containers = [one for manifest in multi_node(name) for spec in pod_specs(manifest) for one in spec["containers"]]
    tokens = [
        variable["valueFrom"]["secretKeyRef"]
        for container in containers
        for variable in container["env"]
        if variable["name"] == "RAY_AUTH_TOKEN"
    ]
    assert [{"name": "tidegate-ray", "key": "auth_token"}] * len(containers) == tokens


def test_kuberay_is_told_the_release_of_ray_that_is_tested() -> None:
    """The one that constraints.txt pins."""
    (cluster,) = [one for one in multi_node("ray-cluster") if one["kind"] == "RayCluster"]
    pins = (_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={cluster['spec']['rayVersion']}" in pins


def unknown_settings(variables: list[str]) -> set[str]:
    """Those of our variables that no setting has."""
    known = {f"TIDEGATE_GATEWAY_{name.upper()}" for name in GatewaySettings.model_fields}
    known |= {f"TIDEGATE_WORKER_{name.upper()}" for name in WorkerSettings.model_fields}
    return {name for name in variables if name.startswith("TIDEGATE_")} - known


def settings_of_the_gateway(values: str) -> dict[str, str]:
    """By name, as the chart gives them with one of ``_VALUES``."""
    (gateway,) = [one for one in rendered(values) if one["kind"] == "Deployment"]
    env = next(pod_specs(gateway))["containers"][0]["env"]
    return {one["name"].removeprefix("TIDEGATE_GATEWAY_"): one["value"] for one in env}


def test_workers_are_addressed_by_their_stable_names() -> None:
    """A gateway is given as many as there are replicas."""
    workers = settings_of_the_gateway("defaults")["WORKERS"]
    assert "tidegate-worker-0.tidegate-worker:50061,tidegate-worker-1.tidegate-worker:50061" == workers


def test_workers_that_come_and_go_are_found_by_their_services_name() -> None:
    """Or those that the autoscaler has not added would be away for ever, and TidegateWorkerAway with them."""
    assert "dns:tidegate-worker:50061" == settings_of_the_gateway("all")["WORKERS"]


def test_a_table_of_settings_is_given_as_json() -> None:
    """As the gateway takes it."""
    told = settings_of_the_gateway("all")["TENANTS"]
    read = GatewaySettings(workers=("a:1",), tenants=json.loads(told))
    assert (2.5, 60_000) == (read.tenants["batch"].weight, read.tenants["batch"].tokens_per_minute)


def test_the_adapter_serves_what_scales_workers() -> None:
    """By the name for which their autoscaler asks, from a rule that is recorded."""
    (metric,) = [
        one["external"]["metric"]["name"]
        for manifest in rendered("all")
        if manifest["kind"] == "HorizontalPodAutoscaler"
        for one in manifest["spec"]["metrics"]
    ]
    values = yaml.safe_load((_DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text(encoding="utf-8"))
    assert [metric] == [rule["name"]["as"] for rule in values["rules"]["external"]]


def test_a_large_number_stays_whole() -> None:
    """Numbers are floats to Helm; 33554432 must not become 3.3554432e+07."""
    (gateway,) = [one for one in rendered("all") if one["kind"] == "Deployment"]
    assert {"name": "TIDEGATE_GATEWAY_PREPARE_BACKLOG_BYTES", "value": "33554432"} in next(pod_specs(gateway))[
        "containers"
    ][0]["env"]


@pytest.mark.parametrize("image", ["gateway", "worker", "quantizer"])
def test_a_dockerfile_passes_hadolint(image: str) -> None:
    """Without a warning; and it neither runs as root nor writes to its image."""
    path = _DEPLOY / f"images/{image}.Dockerfile"
    subprocess.run([_BIN / "hadolint", "--failure-threshold", "style", path], check=True, timeout=PATIENCE_S)
    text = path.read_text(encoding="utf-8")
    assert "USER 10001:10001" in text
    assert "PYTHONDONTWRITEBYTECODE=1" in text
    assert "HEALTHCHECK" in text
    assert set() == unknown_settings(re.findall(r"TIDEGATE_(?:GATEWAY|WORKER)_\w+", text))


def test_prometheus_on_this_machine_knows_services_by_the_same_names() -> None:
    """The rules and dashboards go by them; and it scrapes the default admin ports."""
    configs = [
        yaml.safe_load((_DEPLOY / path).read_text(encoding="utf-8"))
        for path in ("telemetry/prometheus-local.yml", "compose/prometheus.yml")
    ]
    here, compose = [[job["job_name"] for job in config["scrape_configs"]] for config in configs]
    assert compose == here
    targets = [job["static_configs"][0]["targets"][0] for job in configs[0]["scrape_configs"]]
    defaults = [settings.model_fields["admin_listen"].default for settings in (GatewaySettings, WorkerSettings)]
    assert defaults == targets


def test_compose_refers_to_what_exists() -> None:
    """Dockerfiles, mounted files, settings; ports open on this machine alone; nothing can be written to."""
    compose = yaml.safe_load((_DEPLOY / "compose/compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        assert service["read_only"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if "build" in service:
            assert (_DEPLOY / "compose" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert set() == unknown_settings(list(service["environment"]))
        else:
            assert re.fullmatch(r"[\w/.-]+:v?\d[\w.]+", service["image"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (_DEPLOY / "compose" / source).exists()
