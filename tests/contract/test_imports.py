from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S

_ROOT = Path(__file__).parents[2]
_MODEL_LIBRARIES = {"accelerate", "awq", "numpy", "torch", "transformers", "vllm"}


@pytest.mark.parametrize("module", ["gateway.app", "tidegate.client.__main__", "worker.app"])
def test_importing_loads_no_model_library(module: str) -> None:
    """import-linter does not look inside other packages; this does. A worker loads its engine once it is chosen."""
    script = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=_ROOT, check=True, timeout=PATIENCE_S, stdout=subprocess.PIPE
    )
    assert set() == _MODEL_LIBRARIES & set(json.loads(printed.stdout))
