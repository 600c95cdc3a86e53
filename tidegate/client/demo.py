"""`tidegate demo`: from nothing to a streamed answer, with figures, and nothing left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
from rich.console import Console
from rich.table import Table

from tidegate.client.answer import Answer, chat_request
from tidegate.client.chat import choose_model
from tidegate.client.client import Client
from tidegate.client.conversation import Conversation
from tidegate.client.output import TextView, short_time
from tidegate.client.stack import StackOptions, local_stack
from tidegate.client.stats import StreamStats
from tidegate.client.steps import make_steps
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

_MAX_OUTPUT_TOKENS = 128
# The embedded model is a tiny one. Asked for the capital of France without this, its first token is nearly a tie
# between "The" (... is Paris.) and "L'" (and then bad French), which an engine's rounding decides.
_SYSTEM = "Answer in one sentence."
_TIMEOUT_S = 120.0


async def demo(options: StackOptions, prompt: str, *, out: Console, notes: Console) -> None:
    """Answer ``prompt`` greedily. Raises ``ChildFailedError`` or ``TidegateError``; children are gone by then."""
    async with local_stack(options, make_steps(notes)) as stack, Client.connect(stack.gateway_target) as client:
        model = await choose_model(client, None)
        conversation = Conversation(_SYSTEM)
        conversation.ask(prompt)
        request = chat_request(model, conversation.messages, max_output_tokens=_MAX_OUTPUT_TOKENS, temperature=0.0)
        notes.print(f"\n[bold]{model}[/], asked through the gateway:", highlight=False)
        out.print(f"\n> {prompt}\n", markup=False, highlight=False)
        async with _busiest_load(stack.worker_target) as load:
            answer = Answer(TextView(out.file, notes.file))
            stats = await answer.stream(client, request, timeout_s=_TIMEOUT_S)
        out.print()
        out.print(_table(stats, load))


@asynccontextmanager
async def _busiest_load(worker_target: str) -> AsyncIterator[worker_service_pb2.LoadReport]:
    """The load report with the fewest free blocks of those that arrive within the block."""
    busiest = worker_service_pb2.LoadReport()

    async def watch(channel: grpc.aio.Channel) -> None:
        call = worker_service_pb2_grpc.WorkerServiceStub(channel).WatchLoad(worker_service_pb2.WatchLoadRequest())
        try:
            async for response in call:
                report = response.load_report
                if not busiest.total_block_count or report.free_block_count < busiest.free_block_count:
                    busiest.CopyFrom(report)
        finally:
            call.cancel()

    async with grpc.aio.insecure_channel(worker_target, options=CHANNEL_OPTIONS) as channel:
        watching = asyncio.create_task(watch(channel))
        try:
            yield busiest
        finally:
            watching.cancel()
            await asyncio.wait((watching,))


def _table(stats: StreamStats, load: worker_service_pb2.LoadReport) -> Table:
    table = Table(show_header=False, title="Measured by the client", title_justify="left", title_style="bold")
    table.add_row("time to first token (TTFT)", short_time(stats.ttft_s))
    table.add_row("time between tokens (ITL), median", short_time(stats.itl_p50_s))
    table.add_row("output tokens", f"{stats.output_tokens}, ended by {stats.finish_reason}")
    table.add_row("tokens/s, whole call", f"{stats.tokens_per_s:.1f}")
    used = f"{stats.kv_blocks} of {load.total_block_count} used, {load.free_block_count} free"
    table.add_row(f"KV cache blocks of {load.block_size} tokens", used)
    return table
