from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.config import GatewaySettings
from gateway.processes import Processes, share_of
from tests.fakes.served_pid import serve


def settings_of(**fields: Any) -> GatewaySettings:
    """Of three processes."""
    return GatewaySettings(**{"workers": ("127.0.0.1:1",), "listen": "127.0.0.1:0", "processes": 3, **fields})


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Where processes tell their pid."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "pids"))
        listening.listen()
        listening.settimeout(60)
        yield listening


def next_pid(listener: socket.socket) -> int:
    """Of the next process that begins to serve."""
    connection, _ = listener.accept()
    with connection:
        return int(connection.recv(16))


def test_a_lost_process_is_replaced_and_all_end_with_the_parent(listener: socket.socket) -> None:
    """Two serve; one is killed and another takes its place; SIGTERM to the parent ends both, with 0."""
    settings = settings_of(processes=2, tokenizer_dir=Path(listener.getsockname()))

    def play() -> set[int]:
        first, second = next_pid(listener), next_pid(listener)
        os.kill(first, signal.SIGKILL)
        third = next_pid(listener)
        os.kill(os.getpid(), signal.SIGTERM)
        return {first, second, third}

    with ThreadPoolExecutor(1) as thread:
        playing = thread.submit(play)
        code = Processes(settings, serve, start_s=0).run()
    assert (0, 3) == (code, len(playing.result()))


def test_processes_that_cannot_start_end_all(tmp_path: Path) -> None:
    """With the code of the one that failed, and without another try."""
    assert 7 == Processes(settings_of(processes=2, tokenizer_dir=tmp_path / "nobody"), serve).run()


def test_an_address_that_is_taken_is_told_at_once() -> None:
    """No process is started for it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert 1 == Processes(settings_of(listen=f"127.0.0.1:{taken.getsockname()[1]}"), serve).run()


def test_limits_are_divided_among_the_processes() -> None:
    """Together they hold and let through what a single gateway would, rounded up."""
    settings = settings_of(max_in_flight=100, queue_bytes=90 * 2**20, quota_gateways=2)
    share = share_of(settings, 0, listen="127.0.0.1:50051")
    assert (34, 30 * 2**20, 6) == (share.max_in_flight, share.queue_bytes, share.quota_gateways)
    assert ("127.0.0.1:50051", 1, True) == (share.listen, share.processes, share.reuse_port)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, ["127.0.0.1:9464", "127.0.0.1:0"]),
        ({"admin_listen": "127.0.0.1:7000"}, ["127.0.0.1:7000", "127.0.0.1:7001"]),
        ({"admin_listen": "127.0.0.1:0"}, ["127.0.0.1:0", "127.0.0.1:0"]),
        ({"admin_listen": ""}, ["", ""]),
    ],
)
def test_each_process_has_an_admin_port(named: dict[str, str], expected: list[str]) -> None:
    """Named ports follow one another; beside the default one the others are free ones."""
    settings = settings_of(**named)
    assert expected == [share_of(settings, number, listen="127.0.0.1:1").admin_listen for number in (0, 1)]
