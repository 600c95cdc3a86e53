from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import worker
from worker.checkpoint import CheckpointError, open_checkpoint


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        pytest.param("top_k", -1, "must be from 0 to 1024", id="none, to some"),
        pytest.param("top_p", 0, "must be above 0 to 1", id="at an open end"),
        pytest.param("temperature", 2.5, "must be from 0 to 2", id="above"),
    ],
)
def test_defaults_under_which_no_request_would_pass_are_refused(
    tmp_path: Path, name: str, value: float, bounds: str
) -> None:
    """At the start, and by name, rather than with each request that does not say otherwise."""
    directory = Path(shutil.copytree(Path(worker.__file__).parent / "sim_model", tmp_path / "model"))
    config = {"max_new_tokens": 100, "temperature": 0.6, "top_k": 20} | {name: value}
    (directory / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {name} {bounds}, and is {value}"):
        open_checkpoint(directory)
