from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gateway.decision_log import DecisionLog
from tests.fakes.patience import PATIENCE_S

_RETRY = {"kind": "retry", "can_move": True, "failures": 0, "has_budget": True, "outcome_of_attempt": "x", "outcome": 1}
_WRITE = """\
import sys
from pathlib import Path
from gateway.decision_log import DecisionLog
log = DecisionLog(Path(sys.argv[1]))
for number in range(40):
    for _ in range(9):
        log.record({"kind": "test", "text": sys.argv[2] * 999})
    log.flush()
log.close()
"""


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    """With the time at which each was made."""
    path = tmp_path / "log"
    for at_s in (1.0, 2.0):
        log = DecisionLog(path, clock=lambda at_s=at_s: at_s)  # type: ignore[misc]
        log.record(_RETRY)
        log.close()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [{"at_s": 1.0, **_RETRY}, {"at_s": 2.0, **_RETRY}] == lines


def test_a_full_disk_costs_lines_and_not_the_gateway(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, and the task that writes goes on: with it all others of the gateway would end."""
    log = DecisionLog(Path("/dev/full"))
    for _ in range(100):
        log.record({"kind": "test", "text": "x" * 999})
    log.flush()
    log.record(_RETRY)
    log.flush()
    log.record(_RETRY)
    log.close()
    assert 102 == log.lost
    assert 1 == caplog.text.count("decisions cannot be written to /dev/full and are lost: No space left on device")


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full in the middle of it, and has room again."""
    path, room, write = tmp_path / "log", [20, 0], os.write

    def write_little(descriptor: int, text: bytes) -> int:
        if room and not room[0]:
            raise OSError(28, "No space left on device")
        return write(descriptor, text[: room.pop(0)] if room else text)

    monkeypatch.setattr(os, "write", write_little)
    log = DecisionLog(path)
    log.record(_RETRY)
    log.flush()
    room.clear()
    log.record(_RETRY)
    log.close()
    cut, whole = path.read_text(encoding="utf-8").splitlines()
    assert (20, "retry") == (len(cut), json.loads(whole)["kind"])


def test_what_a_slow_disk_makes_wait_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is for requests."""
    monkeypatch.setattr("gateway.decision_log._MAX_WAITING", 2)
    log = DecisionLog(tmp_path / "log")
    for _ in range(5):
        log.record(_RETRY)
    assert 3 == log.lost
    log.close()


def test_processes_share_a_log_by_whole_lines(tmp_path: Path) -> None:
    """Those of one port have the same settings, and the log is to be read again."""
    path = tmp_path / "log"
    writers = [subprocess.Popen([sys.executable, "-c", _WRITE, str(path), letter]) for letter in "ab"]
    assert [0, 0] == [writer.wait(PATIENCE_S) for writer in writers]
    lines = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert {"a" * 999: 360, "b" * 999: 360} == Counter(lines)


async def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    """A call that ends last may still decide something."""
    log = DecisionLog(tmp_path / "log")
    running = asyncio.ensure_future(log.run())
    log.record(_RETRY)
    running.cancel()
    log.close()
    log.record(_RETRY)
    log.close()
    assert 1 == len((tmp_path / "log").read_text(encoding="utf-8").splitlines())
