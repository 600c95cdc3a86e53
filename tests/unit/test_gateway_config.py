from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.config import GatewaySettings
from tests.fakes.patience import PATIENCE_S
from tidegate.settings import ConfigError, read_settings


def read(arguments: Sequence[str]) -> GatewaySettings:
    """What the command line leads to."""
    return read_settings(GatewaySettings, argparse.ArgumentParser(), arguments)[0]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORKERS", "LISTEN", "MAX_IN_FLIGHT"):
        monkeypatch.delenv(f"TIDEGATE_GATEWAY_{name}", raising=False)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the four sources decides what no stronger one does."""
    file = tmp_path / "gateway.toml"
    file.write_text('workers = ["file:1"]\nlisten = "file:2"\nmax_in_flight = 3\n', encoding="utf-8")
    monkeypatch.setenv("TIDEGATE_GATEWAY_LISTEN", "environment:2")
    monkeypatch.setenv("TIDEGATE_GATEWAY_WORKERS", "environment:1")
    settings = read(["--config", str(file), "--workers", "flag:1,flag:2"])
    assert ("flag:1", "flag:2") == settings.workers
    assert ("environment:2", 3, 30.0) == (settings.listen, settings.max_in_flight, settings.drain_grace_s)


def test_what_is_printed_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--print-config writes the file that --config reads."""
    arguments = ["--workers", "a:1,b:2", "--tokenizer-dir", "some/dir", "--max-duration-s", "5"]
    assert 0 == main([*arguments, "--print-config"])
    file = tmp_path / "gateway.toml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert read(arguments) == read(["--config", str(file)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "workers: Field required"),
        (["--workers", "a"], "'a' is not host:port"),
        (["--workers", "a:1,"], "'' is not host:port"),
        (["--workers", "a:1,a:1"], "stands here twice"),
        (["--workers", "a:1", "--max-in-flight", "0"], "max_in_flight: Input should be greater than or equal to 1"),
        (["--workers", "a:1", "--config", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--workers", "a:1", "--keepalive-s", "inf"], "keepalive_s: Input should be less than or equal to 86400"),
        (["--workers", "a:1", "--tenants", "gold"], "tenants.*JSON object"),
        (["--workers", "a:1", "--tenants", '{"gold": {'], "tenants.*JSON object"),
    ],
)
def test_unusable_settings_are_named(arguments: list[str], message: str) -> None:
    """One line for each fault."""
    with pytest.raises(ConfigError, match=message):
        read(arguments)


def test_a_switch_needs_no_value() -> None:
    """As on every command line; and it can be switched off again where the environment has it on."""
    assert read(["--workers", "a:1", "--trust-tenant-metadata"]).trust_tenant_metadata
    assert not read(["--workers", "a:1", "--no-trust-tenant-metadata"]).trust_tenant_metadata


def test_an_address_has_a_port() -> None:
    """Of a service, of its admin port, which may be empty and then is none, and of a worker."""
    for flags in (["--listen", "localhost"], ["--admin-listen", "localhost"], ["--workers", "localhost"]):
        with pytest.raises(ConfigError, match="'localhost' is not host:port"):
            read(["--workers", "a:1", *flags])
    assert "" == read(["--workers", "a:1", "--admin-listen", ""]).admin_listen


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_host_is_a_name_that_one_can_have(host: str) -> None:
    """Python finds others wrong in its own way, which was a traceback of the event loop."""
    for flags in (["--listen", f"{host}:1"], ["--admin-listen", f"{host}:1"], ["--workers", f"dns:{host}:1"]):
        with pytest.raises(ConfigError, match="no host can have that name"):
            read(["--workers", "a:1", *flags])
    assert "[::1]:0" == read(["--workers", "a_b.c.:1", "--listen", "[::1]:0"]).listen


def test_a_port_is_one_that_there_is() -> None:
    """Some would take another one modulo 65536, and listen there."""
    for flags in (["--listen", "a:65536"], ["--admin-listen", "a:99999"], ["--workers", "a:1,b:65536"]):
        with pytest.raises(ConfigError, match="a port is at most 65535"):
            read(["--workers", "a:1", *flags])


def test_tenants_stand_in_a_variable_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is none is named."""
    monkeypatch.setenv("TIDEGATE_GATEWAY_TENANTS", '{"gold": {"weight": 3}}')
    assert 3.0 == read(["--workers", "a:1"]).tenants["gold"].weight
    monkeypatch.setenv("TIDEGATE_GATEWAY_TENANTS", "gold")
    with pytest.raises(ConfigError, match=r"tenants.*JSON object"):
        read(["--workers", "a:1"])


@pytest.mark.parametrize("content", [b"\xff\xfe", b"cli_args = 1", b'_env_file = "x"'])
def test_a_file_with_anything_else_is_named(tmp_path: Path, content: bytes) -> None:
    """What is no text; and keys that the library behind the settings would take for its own."""
    file = tmp_path / "gateway.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"gateway\.toml: "):
        read(["--workers", "a:1", "--config", str(file)])


def test_unknown_keys_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file, in the environment and on the command line."""
    file = tmp_path / "gateway.toml"
    file.write_text('workers = ["a:1"]\nworker = "b:1"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="worker: no such setting"):
        read(["--config", str(file)])
    with pytest.raises(SystemExit):
        read(["--worker-s", "a:1"])
    monkeypatch.setenv("TIDEGATE_GATEWAY_WORKER", "b:1")
    with pytest.raises(ConfigError, match="TIDEGATE_GATEWAY_WORKER: no such setting"):
        read(["--workers", "a:1"])


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    """With the place of the fault."""
    file = tmp_path / "gateway.toml"
    file.write_text("workers = nothing", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gateway\.toml: .*line 1"):
        read(["--config", str(file)])


def test_unusable_settings_end_the_process_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """The fault stands on standard error."""
    assert 2 == main([])
    assert "workers: Field required" in capsys.readouterr().err


def test_a_decision_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """And the process ends with 1, as where it cannot listen."""
    command = [sys.executable, "-m", "gateway", "--workers", "a:1", "--decision-log", str(tmp_path / "none/log")]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S)
    assert (1, 1) == (ended.returncode, ended.stderr.count(b"\n"))
    assert f"cannot write decision_log {tmp_path}/none/log: No such file".encode() in ended.stderr


def test_tenants_have_sections_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the file as it is written and printed."""
    file = tmp_path / "gateway.toml"
    file.write_text(
        'workers = ["a:1"]\n[tenants.gold]\nweight = 3\n[tenants."b.c"]\ntokens_per_minute = 9\n',
        encoding="utf-8",
    )
    settings = read(["--config", str(file)])
    assert (3.0, None) == (settings.tenants["gold"].weight, settings.tenants["gold"].tokens_per_minute)
    assert 0 == main(["--config", str(file), "--print-config"])
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert settings == read(["--config", str(file)])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[tenants.a]\nweigth = 1\n", "tenants.a.weigth: Extra inputs"),
        ("[tenants.a]\nweight = 0\n", "tenants.a.weight: Input should be greater than 0"),
        ('[tenants."a b"]\nweight = 1\n', "tenants.a b"),
    ],
)
def test_unusable_terms_are_named(tmp_path: Path, section: str, message: str) -> None:
    """With the tenant's name."""
    file = tmp_path / "gateway.toml"
    file.write_text(f'workers = ["a:1"]\n{section}', encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read(["--config", str(file)])
