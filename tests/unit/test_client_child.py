from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tidegate.client.child import Child


async def _child(log_path: Path, *lines: str) -> Child:
    program = f"import sys; sys.stderr.write({''.join(line + chr(10) for line in lines)!r})"
    child = await Child.start("worker", [sys.executable, "-c", program], log_path=log_path, grace_s=1)
    await child.wait()
    return child


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "2026-11-23 20:47:34,255 INFO worker.vllm_engine: vLLM 0.32.0: loading /models/m",
            "vLLM 0.32.0: loading /models/m",
        ),
        ("default model:   10 s  unpacking 135 million 4-bit weights", "unpacking 135 million 4-bit weights"),
        ("quantizer: quantizing layers: 7 of 30, 95 s left", "quantizing layers: 7 of 30, 95 s left"),
        ("W1123 21:50:41 triton.py:53] Triton not available", ""),
    ],
)
async def test_progress_is_what_our_own_programs_say(tmp_path: Path, line: str, expected: str) -> None:
    """Warnings of libraries are not progress."""
    child = await _child(tmp_path / "log", line, "WARNING of somebody else")

    assert expected == child.progress()


async def test_a_failure_leads_with_the_exceptions(tmp_path: Path) -> None:
    """An engine's first exception stands hundreds of lines above the end of its log."""
    child = await _child(
        tmp_path / "log",
        "\x1b[31m(Worker pid=7) ERROR [x.py:1] ValueError: too little memory\x1b[0m",
        *(f"  File {number}" for number in range(100)),
        "the end",
    )

    tail = child.failure("ended").tail

    assert "ValueError: too little memory" == tail[0]
    assert "the end" == tail[-1]
    assert len(tail) < 20
