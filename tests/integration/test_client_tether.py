"""A tethered command ends when its parent does, whatever either of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.processes import marked, wait_until_gone
from tidegate.client import tether

# Children print a line when they are ready, and wait for ever.
_WAIT = "print('ready', flush=True); import time; time.sleep(600)"
_DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {_WAIT}"
_ORDERLY = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {_WAIT}"
_WITH_CHILD = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {_DEAF!r}]); import time; time.sleep(600)"
)
_LEAVES_CHILD = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {_DEAF!r}]); sys.exit(3)"


@pytest.fixture
def marker() -> Iterator[str]:
    """Marks this test's processes by their environment; none may be left in the end."""
    name = f"tether-test-{uuid.uuid4().hex}"
    yield name
    for pid in marked(name):
        os.kill(pid, signal.SIGKILL)


def _start(program: str, marker: str, *, grace_s: float = 30.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", tether.__file__, str(grace_s), sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TETHER_TEST": marker},
        start_new_session=True,
    )


def _until_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert b"ready\n" == process.stdout.readline()


def _release(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    code = process.wait(timeout=PATIENCE_S)
    process.stdout.close()
    return code


def test_release_lets_the_command_end_in_order(marker: str) -> None:
    """The command gets SIGTERM, and its own exit code is passed on."""
    process = _start(_ORDERLY, marker)
    _until_ready(process)

    assert 7 == _release(process)
    assert [] == wait_until_gone(marker)


def test_a_deaf_command_is_killed_after_its_grace(marker: str) -> None:
    """SIGTERM is asked first, SIGKILL is not asked at all."""
    process = _start(_DEAF, marker, grace_s=0.2)
    _until_ready(process)

    assert _release(process) != 0
    assert [] == wait_until_gone(marker)


def test_a_byte_on_the_tether_shortens_the_grace(marker: str) -> None:
    """A deaf command with a grace of ten minutes is gone within the two of the test's patience."""
    process = _start(_DEAF, marker, grace_s=600)
    _until_ready(process)
    assert process.stdin is not None
    process.stdin.write(b"!")
    process.stdin.flush()

    _release(process)
    assert [] == wait_until_gone(marker)


def test_children_of_the_command_end_with_it(marker: str) -> None:
    """An engine that a worker started does not stay behind, not even a deaf one."""
    process = _start(_WITH_CHILD, marker)
    _until_ready(process)

    _release(process)
    assert [] == wait_until_gone(marker)


def test_what_a_finished_command_leaves_behind_is_ended(marker: str) -> None:
    """The command's own exit code is passed on."""
    process = _start(_LEAVES_CHILD, marker)

    assert 3 == process.wait(timeout=PATIENCE_S)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    assert [] == wait_until_gone(marker)


def test_sigterm_to_the_tether_ends_the_command(marker: str) -> None:
    """As good as a release."""
    process = _start(_ORDERLY, marker)
    _until_ready(process)
    process.send_signal(signal.SIGTERM)

    assert 7 == process.wait(timeout=PATIENCE_S)
    _release(process)
    assert [] == wait_until_gone(marker)


def test_a_killed_parent_takes_the_command_with_it(marker: str) -> None:
    """SIGKILL leaves the parent no time for anything."""
    program = (
        "import asyncio, sys, pathlib\n"
        "from tidegate.client.child import Child\n"
        "async def main():\n"
        f"    command = [sys.executable, '-c', {_WAIT!r}]\n"
        "    await Child.start('child', command, log_path=pathlib.Path('/dev/stdout'), grace_s=30)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ | {"TETHER_TEST": marker}
    )
    _until_ready(parent)
    parent.kill()
    parent.wait()
    assert parent.stdout is not None
    parent.stdout.close()

    assert [] == wait_until_gone(marker)
