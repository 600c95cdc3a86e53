from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.workers.renderers import TokenizerFiles
from worker.checkpoint import _chat_template


def _files(directory: Path, chat_template: object) -> TokenizerFiles:
    (directory / "tokenizer.json").write_text("{}")
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": chat_template}))
    return TokenizerFiles.from_directory(directory)


@pytest.mark.parametrize(
    ("chat_template", "expected"),
    [
        (None, ""),
        ("Hi", "Hi"),
        ([{"name": "tool_use", "template": "Ho"}, {"name": "default", "template": "Hi"}], "Hi"),
        ([{"name": "tool_use", "template": "Ho"}], ""),
    ],
    ids=["none", "text", "several", "others only"],
)
def test_the_template_of_a_directory_is_that_of_its_worker(
    tmp_path: Path, chat_template: object, expected: str
) -> None:
    """Older checkpoints hold several in tokenizer_config.json, by name."""
    assert expected == _files(tmp_path, chat_template).chat_template.decode()
    assert expected == _chat_template(tmp_path, {"chat_template": chat_template})


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """With what says so, and not with a fault of the gateway's own."""
    with pytest.raises(ValueError, match="chat_template is not text"):
        _files(tmp_path, 5)
