from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from tidegate.client.explain import ExitCode
from tidegate.client.top import top, view
from tidegate.telemetry.admin import AdminServer, Page
from tidegate.telemetry.metrics import Metrics

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "is_draining": False,
    "is_serving": True,
    "event_loop_lag_s": 0.002,
    "calls": {"in_flight": 40, "limit": 4096},
    "first_token_s": {"p50": 0.12, "p99": 1.5},
    "waiting": [{"criticality": "sheddable", "tenant": "batch", "requests": 7}],
    "workers": [
        {
            "address": "w1:50061",
            "model": "m",
            "state": "serving",
            "blocks": {"total": 300, "used": 100, "reserved": 200, "unseen": 0},
            "block_size": 16,
            "running": 30,
            "in_flight": 29,
            "pending_prefill_tokens": 512,
            "prefill_tokens_per_s": 40000,
            "decode_tokens_per_s": 7000,
            "load_age_s": 0.1,
            "breakers": {"connect": "closed", "prefill": "closed", "decode": "open"},
        }
    ],
    "away": ["w2:50061"],
    "refusals": [
        {
            "tenant": "batch",
            "criticality": "sheddable",
            "reason": "WAIT_TOO_LONG",
            "count": 12,
            "latest": {"explanation": "the wait would be 4 s; retry in 3 s", "retry_after_s": 3.0},
        }
    ],
    "latest": [
        {
            "age_s": 0.5,
            "response_id": "r1",
            "model": "m",
            "tenant": "batch",
            "criticality": "sheddable",
            "outcome": "KV_EXHAUSTED",
            "explanation": "none of 1 workers has room; retry in 2 s",
            "worker": "w1:50061",
            "attempts": 1,
            "continuations": 0,
            "waited_s": 1.5,
            "first_token_s": None,
            "duration_s": 1.5,
            "output_tokens": 0,
            "retry_after_s": 2.0,
        }
    ],
}


@pytest.fixture
def admin() -> Iterator[str]:
    """An admin port with a status."""
    page = Page(content_type="application/json", content=lambda: json.dumps(STATUS).encode())
    server = AdminServer("127.0.0.1:0", Metrics().registry, {"/status.json": page})
    yield server.address
    server.close()


def shown(width: int = 140) -> str:
    """The view as text."""
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(view(STATUS))
    return console.export_text()


@pytest.mark.parametrize(
    "expected",
    [
        "serving",
        "calls 40/4096",
        "waiting 7",
        "TTFT 120 ms p50, 1.5 s p99",
        "away: w2:50061",
        "█████▒▒▒▒▒▒····· 200/300",
        "decode open",
        "batch   sheddable    WAIT_TOO_LONG     12  the wait would be 4 s; retry in 3 s",
        "3 s",
        "none of 1 workers has room; retry in 2 s",
    ],
)
def test_the_view_tells_what_is_the_matter(expected: str) -> None:
    """Who waits, what is full and broken, who is refused, why, and when to retry."""
    assert expected in shown()


@pytest.mark.parametrize(
    "expected", ["w1:50061", "200/300", "decode open", "running", "here", "tok/s", "7000", "prefill", "serving", "3 s"]
)
def test_a_terminal_of_80_columns_is_wide_enough(expected: str) -> None:
    """For all figures; addresses and explanations are cut off."""
    assert expected in shown(width=80)


@pytest.mark.parametrize("address", ["{}", "http://{}/"])
async def test_json_is_the_status_itself(admin: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, for programs; the address may be as a browser shows it."""
    assert ExitCode.OK is await top(address.format(admin), interval_s=1, is_once=True, json_lines=True)
    assert STATUS == json.loads(capsys.readouterr().out)


async def test_without_a_gateway_it_ends_with_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    """And says where it looked."""
    assert ExitCode.UNAVAILABLE is await top("127.0.0.1:1", interval_s=1, is_once=True, json_lines=False)
    assert "http://127.0.0.1:1/status.json" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"\x00\x00\x18\x04\x00\x00\x00\x00\x00", b""])
async def test_a_port_that_speaks_something_else_is_told(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """As that of gRPC does, which is mistaken for the admin port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        assert ExitCode.UNAVAILABLE is await top(f"{host}:{port}", interval_s=1, is_once=True, json_lines=False)
    assert f"no status at http://{host}:{port}/status.json: it does not speak HTTP/1" in capsys.readouterr().err


async def test_an_address_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a local mistake, and no traceback."""
    assert ExitCode.UNAVAILABLE is await top("a b", interval_s=1, is_once=True, json_lines=False)
    assert "no status at http://a b/status.json" in capsys.readouterr().err
