from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import worker
from tidegate.settings import ConfigError, read_settings
from worker.__main__ import main
from worker.checkpoint import open_checkpoint
from worker.config import WorkerSettings
from worker.engines import build_engine


def read(arguments: Sequence[str]) -> WorkerSettings:
    """What the command line leads to."""
    return read_settings(WorkerSettings, argparse.ArgumentParser(), arguments)[0]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A file with a few settings."""
    path = tmp_path / "worker.toml"
    path.write_text('engine = "sim"\nkv_block_count = 1\nengine_seed = 1\ndrain_grace_s = 1\n', encoding="utf-8")
    return path


def test_flag_beats_environment_beats_file_beats_default(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source overrides those after it, setting by setting."""
    monkeypatch.setenv("TIDEGATE_WORKER_KV_BLOCK_COUNT", "2")
    monkeypatch.setenv("TIDEGATE_WORKER_ENGINE_SEED", "2")

    settings = read(["--config", str(config_file), "--kv-block-count", "3"])

    assert (3, 2, 1.0, 10.0) == (
        settings.kv_block_count,
        settings.engine_seed,
        settings.drain_grace_s,
        settings.stall_after_s,
    )


def test_unknown_key_in_the_file_is_an_error(config_file: Path) -> None:
    """A misspelt key is named."""
    config_file.write_text("kv_block_cuont = 1\n", encoding="utf-8")

    with pytest.raises(ConfigError, match="kv_block_cuont"):
        read(["--config", str(config_file)])


def test_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is named."""
    monkeypatch.setenv("TIDEGATE_WORKER_LISTEM", "x")

    with pytest.raises(ConfigError, match="TIDEGATE_WORKER_LISTEM"):
        read([])


def test_unknown_flag_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt flag is named, and ends the process as argparse does."""
    with pytest.raises(SystemExit):
        read(["--listem", "x"])

    assert "--listem" in capsys.readouterr().err


def test_values_out_of_range_are_errors() -> None:
    """All of them are named at once."""
    with pytest.raises(ConfigError, match=r"(?s)stall_after_s.*output_quantile"):
        read(["--stall-after-s", "0", "--output-quantile", "2"])


def test_printed_config_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --print-config prints, --config takes."""
    arguments = ["--engine", "sim", "--model-dir", str(tmp_path), "--eager"]
    assert 0 == main([*arguments, "--print-config"])
    path = tmp_path / "printed.toml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")

    assert read(arguments) == read(["--config", str(path)])


def test_settings_that_cannot_be_used_end_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """The fault is on stderr."""
    assert 2 == main(["--stall-after-s", "0"])
    assert "stall_after_s" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--supervise"]], ids=["alone", "supervised"])
def test_a_model_that_is_not_named_is_no_reason_to_start_again(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """No restart brings it, so that a supervisor does not try."""
    assert 2 == main(flags)
    assert "model_dir" in capsys.readouterr().err


def test_a_missing_vllm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and without it there was a traceback."""
    monkeypatch.setitem(sys.modules, "worker.vllm_engine", None)
    with pytest.raises(ValueError, match="vLLM cannot be loaded"):
        build_engine(WorkerSettings(), open_checkpoint(Path(worker.__file__).parent / "sim_model"))


@pytest.mark.parametrize("flag", ["--context-length", "--kv-block-count", "--default-max-output-tokens"])
def test_a_size_is_one_that_gateways_can_be_told(flag: str) -> None:
    """Of a larger one no gateway would hear more than INTERNAL."""
    name = flag[2:].replace("-", "_")
    with pytest.raises(ConfigError, match=f"{name}: Input should be less than or equal to 2147483647"):
        read(["--engine", "sim", flag, "10000000000"])
