from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fakes.patience import PATIENCE_S

_ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent


def generated(root: Path) -> dict[str, bytes]:
    """What `make proto` has written under ``root``."""
    files = [*root.glob("tidegate/*/v*/*_pb2*.py*"), root / "protos" / "tidegate.binpb"]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_generated_files_are_those_of_the_protos(tmp_path: Path) -> None:
    """Code, types and descriptor set are what `make proto` writes, and nothing is left of protos that are gone."""
    make = ["make", "--silent", "--assume-old=.venv/.installed", "proto", f"OUT={tmp_path}"]
    subprocess.run(make, cwd=_ROOT, check=True, timeout=PATIENCE_S)
    expected = generated(tmp_path)
    actual = generated(_ROOT)
    assert sorted(expected) == sorted(actual)
    stale = [name for name, content in expected.items() if content != actual[name]]
    assert [] == stale, "run `make proto`"


def test_protos_pass_buf_lint() -> None:
    """Names, packages and a comment on everything: buf's STANDARD and COMMENTS."""
    lint = subprocess.run(
        [_BIN / "buf", "lint", "protos"], cwd=_ROOT, check=False, timeout=PATIENCE_S, stdout=subprocess.PIPE
    )
    assert "" == lint.stdout.decode()
    assert 0 == lint.returncode
