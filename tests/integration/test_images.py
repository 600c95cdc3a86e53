from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

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


@pytest.mark.parametrize("image", _CASES)
def test_what_an_image_installs_runs(image: str, tmp_path: Path) -> None:
    """The step of the Dockerfile itself, in an environment with nothing else in it."""
    arguments, program, command = _CASES[image]
    text = (_ROOT / f"deploy/images/{image}.Dockerfile").read_text(encoding="utf-8")
    (step,) = re.findall(r"^RUN (uv pip install .*)$", text, re.MULTILINE)
    for name, value in arguments.items():
        step = step.replace(f"${{{name}}}", value)
    python = tmp_path / "venv/bin/python"
    venv.create(python.parents[1])
    words = [str(python) if word == "/opt/tidegate/bin/python" else word for word in shlex.split(step)]
    words.remove("--no-cache")  # what was fetched for the tests serves here too
    subprocess.run([sys.executable, "-m", *words, "--quiet"], cwd=_ROOT, check=True, timeout=240)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for run in (["-c", program], command):
        subprocess.run([python, *run], cwd=tmp_path, env=environment, check=True, timeout=60)
