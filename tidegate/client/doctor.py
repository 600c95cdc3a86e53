"""`tidegate doctor`: is there a gateway, can it serve, and does a token come out? Each failure with what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc.aio
from rich.console import Console
from rich.markup import escape

from tidegate.client.answer import chat_request
from tidegate.client.chat import choose_model
from tidegate.client.client import Client
from tidegate.client.errors import TidegateError
from tidegate.client.explain import ExitCode, explain
from tidegate.client.health import GATEWAY, PROCESS, check_health
from tidegate.client.output import short_time
from tidegate.client.stats import StreamMeter
from tidegate.inference.v1 import chat_pb2
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError

_TIMEOUT_S = 5.0
_TOKEN_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing checked. ``detail`` says what was found or, when it is not ok, what is wrong and what to do."""

    check: str
    is_ok: bool
    detail: str


async def examine(target: str) -> AsyncIterator[Finding]:
    """Check one thing after the other, up to the first that fails: what depends on it would fail too."""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        for name, check in _CHECKS.items():
            try:
                yield Finding(check=name, is_ok=True, detail=await check(channel))
            except TidegateError as error:
                yield Finding(check=name, is_ok=False, detail="\n".join(explain(error)))
                return


async def _reachable(channel: grpc.aio.Channel) -> str:
    return f"the process is {await _health(channel, PROCESS)}"


async def _serving(channel: grpc.aio.Channel) -> str:
    if (status := await _health(channel, GATEWAY)) != "SERVING":
        message = f"health of {GATEWAY} is {status}"
        raise TidegateError(
            RpcError(code=grpc.StatusCode.UNAVAILABLE, reason="NO_WORKER_AVAILABLE", domain="", message=message)
        )
    return GATEWAY


async def _models(channel: grpc.aio.Channel) -> str:
    models = await Client(channel).list_models(timeout_s=_TIMEOUT_S)
    return ", ".join(f"{model.name} (context {model.limits.context_length})" for model in models)


async def _token(channel: grpc.aio.Channel) -> str:
    client = Client(channel)
    question = chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_USER, content="Hello")
    request = chat_request(await choose_model(client, None), [question], max_output_tokens=1)
    meter = StreamMeter()
    async for event in client.generate(request, timeout_s=_TOKEN_TIMEOUT_S):
        meter.observe(event)
    return f"in {short_time(meter.stats().ttft_s)}"


async def _health(channel: grpc.aio.Channel, service: str) -> str:
    try:
        return await check_health(channel, service, timeout_s=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise TidegateError(RpcError.from_call(error)) from error


_CHECKS: dict[str, Callable[[grpc.aio.Channel], Awaitable[str]]] = {
    "gateway reachable": _reachable,
    "gateway serving": _serving,
    "models served": _models,
    "token generated": _token,
}


async def print_findings(target: str) -> ExitCode:
    """Print every finding as it is made; how it went."""
    console = Console()
    async for finding in examine(target):
        mark = "[green]ok[/]    " if finding.is_ok else "[red]FAILED[/]"
        console.print(f"{mark} {finding.check}: {escape(finding.detail)}", highlight=False, soft_wrap=True)
        if not finding.is_ok:
            return ExitCode.UNAVAILABLE
    return ExitCode.OK
