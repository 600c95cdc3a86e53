from __future__ import annotations

import asyncio
import json
import re
import shutil
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_request
from tests.fakes.running_worker import running_worker

_ASSETS = Path(__file__).parents[2] / "gateway/status_page"


@pytest.fixture
async def gateway(stack: AsyncExitStack) -> RunningGateway:
    """A gateway over two workers, one of which never comes, after an answer and a refusal."""
    worker = await stack.enter_async_context(running_worker())
    gateway = await stack.enter_async_context(
        running_gateway(worker.worker.address, "127.0.0.1:1", ready=1, admin_listen="127.0.0.1:0")
    )
    await gateway.generate(text_request("<b>secretive</b>", model="sim"))
    await gateway.error(text_request(model="<script>alert(1)</script>"))
    await gateway.gateway.until_idle()
    return gateway


async def read(gateway: RunningGateway) -> dict[str, Any]:
    """The status document."""

    def get() -> Any:
        url = f"http://{gateway.gateway.admin_address}/status.json"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            return json.load(response)

    document: dict[str, Any] = await asyncio.to_thread(get)
    return document


async def test_the_status_explains_the_latest_generations(gateway: RunningGateway) -> None:
    """Which worker and why; or why not, without a word of the request."""
    status = await read(gateway)
    refused, answered = status["latest"]
    assert ("ok", 1, 8) == (answered["outcome"], answered["attempts"], answered["output_tokens"])
    assert re.match(
        r"127.0.0.1:\d+: first token foreseen in [\d.e-]+ s, \d+ of 31838 blocks free", answered["explanation"]
    )
    assert ("MODEL_NOT_FOUND", "see docs/errors.md") == (refused["outcome"], refused["explanation"])
    assert [(1, refused["response_id"])] == [(row["count"], row["latest"]["response_id"]) for row in status["refusals"]]
    assert "secretive" not in json.dumps(status)


async def test_the_status_shows_the_fleet(gateway: RunningGateway) -> None:
    """The workers that are there, with blocks and breakers, and the one that is not."""
    status = await read(gateway)
    assert ["127.0.0.1:1"] == status["away"]
    (worker,) = status["workers"]
    assert ("serving", 31838) == (worker["state"], worker["blocks"]["total"])
    assert {"connect": "closed", "prefill": "closed", "decode": "closed"} == worker["breakers"]


async def test_away_are_addresses_and_not_where_they_come_from(stack: AsyncExitStack, tmp_path: Path) -> None:
    """A file, or a name of DNS, is no worker that could be away; those that it names may be."""
    worker = await stack.enter_async_context(running_worker())
    file = tmp_path / "workers"
    file.write_text(f"{worker.worker.address}\n127.0.0.1:1\n", encoding="utf-8")
    gateway = await stack.enter_async_context(running_gateway(f"file:{file}", ready=1, admin_listen="127.0.0.1:0"))
    assert ["127.0.0.1:1"] == (await read(gateway))["away"]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No address of another host, nothing inline that its content security policy would have to allow."""
    for path in _ASSETS.iterdir():
        text = path.read_text(encoding="utf-8")
        assert [] == re.findall(r"(?:https?:)?//[a-z]", text.replace("// Reads", ""))
        assert [] == re.findall(r"innerHTML|<style|<script>|\son\w+=", text)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed: apt-get install chromium")
async def test_a_browser_draws_the_page(gateway: RunningGateway, tmp_path: Path) -> None:
    """The figures, a map of each worker's blocks, the reasons; and text from outside stays text."""
    process = await asyncio.create_subprocess_exec(
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
        *("--virtual-time-budget=3000", "--dump-dom", f"http://{gateway.gateway.admin_address}/"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    page = out.decode()
    assert "Serving; away: 127.0.0.1:1." in page
    assert 200 == len(re.findall(r'<i class="(?:used|reserved|unseen|free)"></i>', page.split('id="workers"')[1]))
    assert "first token foreseen in" in page
    assert "MODEL_NOT_FOUND" in page
    assert "<script>alert" not in page
