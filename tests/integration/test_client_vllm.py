"""The whole path on real parts: command, gateway, worker, vLLM."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.real_vllm import RealVllm
from tests.fakes.running_gateway import running_gateway

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


async def test_a_question_is_answered_by_a_real_model(vllm: RealVllm) -> None:
    """The answer streams in several pieces, is right, and gives its blocks back."""
    async with running_gateway(vllm.worker.worker.address) as gateway:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tidegate.client", "chat", "--target", gateway.gateway.address, "--json"),
            *("--temperature", "0", "--system", "Answer in one sentence.", "What is the capital of France?"),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await process.communicate()

    events = [json.loads(line) for line in out.splitlines()]
    pieces = ["".join(event["delta"].get("text", ())) for event in events if "delta" in event]
    assert "The capital of France is Paris." == "".join(pieces)
    assert len(pieces) > 1
    assert "stop" == events[-1]["stats"]["finish_reason"]
    await vllm.until_idle()
