from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S
from tidegate.native.choice import BUILT, CHOICE

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


@pytest.mark.skipif(CHOICE.folder is None, reason="shares what make test-native has compiled")
def test_what_an_image_compiles_is_what_it_runs(tmp_path: Path) -> None:
    """The step of the Dockerfile itself, with its tools; it finds the compiling done, since that takes a minute."""
    python = tmp_path / "venv/bin/python"
    venv.create(python.parents[1])
    subprocess.run([*install_step("gateway", {}, python), "--quiet"], cwd=_ROOT, check=True, timeout=2 * PATIENCE_S)
    building = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TIDEGATE_NATIVE")}
    where = "from tidegate.native.choice import BUILT; print(BUILT)"
    found = subprocess.run([python, "-c", where], cwd=tmp_path, env=building, check=True, stdout=subprocess.PIPE)
    built = Path(found.stdout.decode().strip())
    shutil.copytree(BUILT, built)
    subprocess.run(
        ["bash", "-euc", compile_step("gateway", tmp_path)], cwd=_ROOT, env=building, check=True, timeout=2 * PATIENCE_S
    )
    imported = "import tidegate.http2.connection as module; print(module.__file__)"
    running = building | {"TIDEGATE_NATIVE": "1"}
    run = subprocess.run([python, "-c", imported], cwd=tmp_path, env=running, check=True, stdout=subprocess.PIPE)
    assert built in Path(run.stdout.decode().strip()).parents


def test_all_images_compile_alike(tmp_path: Path) -> None:
    """So that what is tried out for one holds for the other."""
    assert compile_step("gateway", tmp_path) == compile_step("worker", tmp_path)


def compile_step(image: str, folder: Path) -> str:
    """The Dockerfile's, in ``folder`` instead of /opt."""
    text = (_ROOT / f"deploy/images/{image}.Dockerfile").read_text(encoding="utf-8")
    (step,) = re.findall(r"^RUN (uv venv (?:.*\\\n)*.*)$", text, re.MULTILINE)
    step = step.replace("/opt/compile", f"{folder}/compile").replace("/opt/tidegate", f"{folder}/venv")
    return re.sub(r"\buv (?=venv|pip)", f"{sys.executable} -m uv ", step).replace("--no-cache ", "--quiet ")


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
