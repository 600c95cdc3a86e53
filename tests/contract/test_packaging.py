from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("gateway", "quantizer", "tidegate", "worker")
_PRINT_OWNERS = "import importlib.metadata, json; print(json.dumps(importlib.metadata.packages_distributions()))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(build, cwd=_ROOT, check=True, timeout=PATIENCE_S)
    return next(out.glob("*.whl"))


def test_top_level_packages_belong_to_one_distribution(wheel: Path, tmp_path: Path) -> None:
    """`gateway` and `worker` are common names: nothing else may own them, and we own no others."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    install = ["-m", "uv", "pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, timeout=PATIENCE_S)
    printed = subprocess.run([python, "-c", _PRINT_OWNERS], check=True, timeout=PATIENCE_S, stdout=subprocess.PIPE)
    assert {package: ["tidegate"] for package in _PACKAGES} == json.loads(printed.stdout)


def test_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Data files and the marker of types are shipped with the code."""
    tracked = subprocess.run(
        ["git", "ls-files", *_PACKAGES], cwd=_ROOT, check=True, timeout=PATIENCE_S, stdout=subprocess.PIPE
    )
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    assert set() == set(tracked.stdout.decode().splitlines()) - shipped
    assert "tidegate/py.typed" in shipped
