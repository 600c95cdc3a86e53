from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch

from quantizer.errors import TargetError
from quantizer.staging import Staging, open_staging


def _layer(value: float) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    return {"weight": torch.full((2, 2), value)}, torch.full((1, 3), value)


def _fill(staging: Staging, key: str, layers: int) -> None:
    staging.claim(key)
    for index in range(layers):
        staging.save_layer(index, *_layer(index))


def test_finished_layers_are_found_again(tmp_path: Path) -> None:
    """Another run with the same key goes on after the last layer, with what enters the next one."""
    with open_staging(tmp_path / "out") as staging:
        _fill(staging, "key", 3)
    with open_staging(tmp_path / "out") as staging:
        staging.claim("key")
        assert 3 == staging.finished_layers()
        assert torch.equal(_layer(2)[1], staging.inputs(3))
        assert torch.equal(_layer(1)[0]["weight"], staging.layer(1)["weight"])


def test_layers_of_another_key_are_deleted(tmp_path: Path) -> None:
    """Another recipe, calibration, source or library does not continue what this one began."""
    with open_staging(tmp_path / "out") as staging:
        _fill(staging, "key", 3)
        staging.claim("other")
        assert 0 == staging.finished_layers()


def test_layers_of_nobody_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed while it deleted another's left some of them, and the other cannot go on with those."""
    with open_staging(tmp_path / "out") as staging:
        _fill(staging, "key", 3)
        with monkeypatch.context() as patched:
            _stop_after_deleting(patched, "inputs-0003.safetensors")
            with pytest.raises(KeyboardInterrupt):
                staging.claim("other")
        staging.claim("key")
        assert 0 == staging.finished_layers()


def _stop_after_deleting(patched: pytest.MonkeyPatch, name: str) -> None:
    unlink, list_all = Path.unlink, Path.iterdir

    def unlink_and_stop(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.name == name:
            raise KeyboardInterrupt

    patched.setattr(Path, "unlink", unlink_and_stop)
    patched.setattr(Path, "iterdir", lambda path: iter(sorted(list_all(path))))


def test_an_unfinished_write_is_not_a_layer(tmp_path: Path) -> None:
    """A file under its temporary name, as a kill leaves it, counts for nothing."""
    with open_staging(tmp_path / "out") as staging:
        _fill(staging, "key", 1)
        (staging.directory / ".layer-0001.safetensors").write_bytes(b"half")
        assert 1 == staging.finished_layers()


def test_only_the_inputs_of_the_next_layer_are_kept(tmp_path: Path) -> None:
    """Hidden states are large, and of no use once the layer behind them is done."""
    with open_staging(tmp_path / "out") as staging:
        _fill(staging, "key", 3)
        assert ["inputs-0003.safetensors"] == [path.name for path in staging.directory.glob("inputs-*")]


def test_publishing_makes_a_readable_directory_and_cleans_up(tmp_path: Path) -> None:
    """The target holds the checkpoint, readable by other users, and nothing else is left."""
    with open_staging(tmp_path / "out") as staging:
        path = staging.start_checkpoint() / "model.safetensors"
        path.write_bytes(b"weights")
        path.chmod(0o600)
        staging.publish()
    assert [tmp_path / "out"] == list(tmp_path.iterdir())
    assert b"weights" == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert 0o644 == stat.S_IMODE((tmp_path / "out" / "model.safetensors").stat().st_mode)


def test_publishing_replaces_nothing(tmp_path: Path) -> None:
    """A target that holds something is left as it is."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x", encoding="utf-8")
    with open_staging(tmp_path / "out") as staging:
        (staging.start_checkpoint() / "config.json").write_text("{}", encoding="utf-8")
        with pytest.raises(TargetError):
            staging.publish()
    assert ["precious"] == [path.name for path in (tmp_path / "out").iterdir()]


def test_two_runs_cannot_work_on_one_target(tmp_path: Path) -> None:
    """The second one is told so at once."""
    with (
        open_staging(tmp_path / "out"),
        pytest.raises(TargetError, match="another run"),
        open_staging(tmp_path / "out"),
    ):
        pass
