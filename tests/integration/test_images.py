from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S

_ROOT = Path(__file__).parents[2]
_GPU_CONSTRAINTS = _ROOT / "deploy/images/gpu-constraints.txt"

_CASES = {
    "gateway": (
        {},
        "import gateway.app, sys; assert not {'torch', 'vllm'} & set(sys.modules)",
        ["-m", "gateway", "--workers", "w:1", "--print-config"],
    ),
    "worker": (
        {"ENGINE": ""},
        "import worker.app, worker.sim_engine",
        ["-m", "worker", "--engine", "sim", "--print-config"],
    ),
}


# What an image would get is too much to install here: gigabytes, for GPUs.
_RESOLVED = {
    "quantizer": ("quantizer", {}),
    "worker over several nodes": ("worker", {"ENGINE": ",vllm,ray"}),
}


def install_step(image: str, arguments: Mapping[str, str], python: Path) -> list[str]:
    """The step of the Dockerfile itself, into another environment."""
    text = (_ROOT / f"deploy/images/{image}.Dockerfile").read_text(encoding="utf-8")
    (step,) = re.findall(r"^RUN (uv pip install .*)$", text, re.MULTILINE)
    for name, value in arguments.items():
        step = step.replace(f"${{{name}}}", value)
    # A COPY has put it beside pyproject.toml.
    places = {"/opt/tidegate/bin/python": str(python), "gpu-constraints.txt": str(_GPU_CONSTRAINTS)}
    words = [places.get(word, word) for word in shlex.split(step)]
    words.remove("--no-cache")  # what was fetched for the tests serves here too
    return [sys.executable, "-m", *words]


@pytest.mark.parametrize("image", _CASES)
def test_what_an_image_installs_runs(image: str, tmp_path: Path) -> None:
    """In an environment with nothing else in it."""
    arguments, program, command = _CASES[image]
    python = tmp_path / "venv/bin/python"
    venv.create(python.parents[1])
    subprocess.run([*install_step(image, arguments, python), "--quiet"], cwd=_ROOT, check=True, timeout=2 * PATIENCE_S)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for run in (["-c", program], command):
        subprocess.run([python, *run], cwd=tmp_path, env=environment, check=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("case", _RESOLVED)
def test_all_that_an_image_would_get_is_pinned(case: str, tmp_path: Path) -> None:
    """It can be resolved, and there is one answer: each package at the version that the constraints name."""
    image, arguments = _RESOLVED[case]
    python = tmp_path / "venv/bin/python"
    venv.create(python.parents[1])
    step = [*install_step(image, arguments, python), "--dry-run"]
    done = subprocess.run(step, cwd=_ROOT, check=True, timeout=2 * PATIENCE_S, capture_output=True)
    found = set(re.findall(r"^ \+ (\S+==\S+)$", done.stderr.decode(), re.MULTILINE))
    assert {"torch", "triton"} <= {pin.split("==")[0] for pin in found}
    assert set() == {pin.split("+")[0] for pin in found} - set(_GPU_CONSTRAINTS.read_text(encoding="utf-8").split())
