"""First use of the embedded model: unpacked, quantized through the gate, and kept."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.fakes.tiny_models import write_tiny_model
from tidegate.client.child import Child
from tidegate.client.embedded_model import EMBEDDED_MODEL, prepare_embedded_model
from tidegate.client.steps import PlainSteps
from worker.default_model import _RECIPE, _RECIPE_FILE
from worker.manifest import read_manifest


class _Starter:
    """Starts the real programs, and remembers which."""

    def __init__(self, logs: Path) -> None:
        self.modules: list[str] = []
        self._logs = logs

    async def __call__(self, module: str, *words: str, **arguments: str) -> Child:
        self.modules.append(module)
        options = [part for name, value in arguments.items() for part in (f"--{name.replace('_', '-')}", value)]
        command = [sys.executable, "-m", module, *words, *options]
        return await Child.start(module, command, log_path=self._logs / f"{module}.log", grace_s=5)


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model stands where the embedded one would be unpacked to: what is tested is the way, in seconds."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    dense = write_tiny_model(tmp_path / "models" / EMBEDDED_MODEL)
    (dense / _RECIPE_FILE).write_text(_RECIPE, encoding="utf-8")
    return dense.parent


async def test_it_is_quantized_once_and_kept(models_dir: Path, tmp_path: Path) -> None:
    """What is served is 4-bit, measured and with a manifest; the second time nothing is started."""
    start, shown = _Starter(tmp_path / "logs"), io.StringIO()
    quantized = await prepare_embedded_model(models_dir, start, PlainSteps(shown))
    assert ["worker.default_model", "quantizer"] == start.modules
    manifest = read_manifest(quantized)
    assert manifest is not None
    assert manifest.calibration is not None
    assert "Quantizing it, once: done" in shown.getvalue()

    assert quantized == await prepare_embedded_model(models_dir, start, PlainSteps(shown))
    assert 2 == len(start.modules)
