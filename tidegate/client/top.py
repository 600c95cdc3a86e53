"""`tidegate top`: what a gateway sees, live in a terminal. Reads its admin port's status.json."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidegate.client.explain import ExitCode
from tidegate.client.output import short_time

_TIMEOUT_S = 5.0
_BAR_CELLS = 16
_ADDRESS_CELLS = 10  # at least; it is what gives way in a narrow terminal
_SHOWN_REFUSALS = 8
_SHOWN_LATEST = 8

Status = dict[str, Any]


class NoStatusError(Exception):
    """The admin port does not answer."""


async def top(admin: str, *, interval_s: float, is_once: bool, json_lines: bool) -> ExitCode:
    """Show the status until interrupted, or once."""
    console = Console()
    try:
        if json_lines or is_once:
            while True:
                status = await read_status(admin)
                console.print_json(data=status, indent=None) if json_lines else console.print(view(status))
                if is_once:
                    return ExitCode.OK
                await asyncio.sleep(interval_s)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view(await read_status(admin)), refresh=True)
                await asyncio.sleep(interval_s)
    except NoStatusError as error:
        Console(stderr=True).print(f"[red]{error}[/]", highlight=False, soft_wrap=True)
        return ExitCode.UNAVAILABLE


async def read_status(admin: str) -> Status:
    """The status document of the gateway whose admin port is ``admin``, host:port or as a browser shows it.

    Raises ``NoStatusError``.
    """
    url = f"http://{admin.removeprefix('http://').rstrip('/')}/status.json"

    def read() -> Status:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            status: Status = json.load(response)
        return status

    try:
        return await asyncio.to_thread(read)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        # A port of gRPC answers with bytes that do not belong on a terminal.
        what = "it does not speak HTTP/1" if isinstance(error, http.client.BadStatusLine) else str(error)
        raise NoStatusError(f"no status at {url}: {what}") from error


def view(status: Status) -> RenderableType:
    """The status for a terminal."""
    return Group(_headline(status), _workers(status), _refusals(status), _waiting(status), _latest(status))


def _headline(status: Status) -> Text:
    first = status["first_token_s"]
    waiting = sum(row["requests"] for row in status["waiting"])
    line = Text.assemble(
        ("tidegate ", "bold"),
        ("draining" if status["is_draining"] else "serving" if status["is_serving"] else "NOT SERVING", _good(status)),
        f"   calls {status['calls']['in_flight']}/{status['calls']['limit']}   waiting {waiting}",
        f"   TTFT {short_time(first['p50'])} p50, {short_time(first['p99'])} p99" if first else "   TTFT -",
        f"   loop late {short_time(status['event_loop_lag_s'])}",
    )
    if status["away"]:
        line.append(f"   away: {', '.join(status['away'])}", "bold red")
    return line


def _good(status: Status) -> str:
    return "bold green" if status["is_serving"] and not status["is_draining"] else "bold red"


def _workers(status: Status) -> Table:
    table = Table(title="Workers", title_justify="left", pad_edge=False, box=None, header_style="dim")
    table.add_column("worker", min_width=_ADDRESS_CELLS, overflow="ellipsis")
    table.add_column("KV blocks", no_wrap=True)
    for name in ("running", "here", "tok/s", "prefill"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("state", no_wrap=True, min_width=len("serving"))
    for worker in status["workers"]:
        blocks = worker["blocks"]
        taken = max(blocks["used"], blocks["reserved"])
        broken = [f"{phase} {breaker}" for phase, breaker in worker["breakers"].items() if breaker != "closed"]
        is_well = worker["state"] == "serving" and not broken
        state = Text(", ".join(broken) or worker["state"], "green" if is_well else "bold red")
        table.add_row(
            worker["address"],
            Text.assemble(_bar(blocks), f" {taken}/{blocks['total']}"),
            *(str(worker[name]) for name in ("running", "in_flight", "decode_tokens_per_s", "pending_prefill_tokens")),
            state,
        )
    return table


def _bar(blocks: dict[str, int]) -> Text:
    """The KV cache as a bar: in use, promised, free."""
    total = max(1, blocks["total"])
    used = round(_BAR_CELLS * blocks["used"] / total)
    promised = max(0, round(_BAR_CELLS * blocks["reserved"] / total) - used)
    free = max(0, _BAR_CELLS - used - promised)
    return Text.assemble(("█" * used, "cyan"), ("▒" * promised, "cyan"), ("·" * free, "dim"))


def _waiting(status: Status) -> RenderableType:
    if not status["waiting"]:
        return Text("Nobody waits.", "dim")
    table = Table(title="Waiting", title_justify="left", pad_edge=False, box=None, header_style="dim")
    table.add_column("criticality")
    table.add_column("tenant")
    table.add_column("requests", justify="right")
    for row in status["waiting"]:
        table.add_row(row["criticality"], row["tenant"] or "(none)", str(row["requests"]))
    return table


def _refusals(status: Status) -> RenderableType:
    if not status["refusals"]:
        return Text("Nobody was refused.", "dim")
    table = Table(
        title="Refused since the start", title_justify="left", expand=True, pad_edge=False, box=None, header_style="dim"
    )
    for name in ("tenant", "criticality", "reason"):
        table.add_column(name, no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("why, the latest time", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("retry after", justify="right", no_wrap=True)
    for row in status["refusals"][:_SHOWN_REFUSALS]:
        latest = row["latest"]
        table.add_row(
            row["tenant"] or "(none)",
            row["criticality"],
            Text(row["reason"], "red"),
            str(row["count"]),
            latest["explanation"],
            short_time(latest["retry_after_s"]),
        )
    return table


def _latest(status: Status) -> RenderableType:
    if not status["latest"]:
        return Text("No generation has ended yet.", "dim")
    table = Table(title="Latest", title_justify="left", expand=True, pad_edge=False, box=None, header_style="dim")
    for name in ("tenant", "outcome"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("waited", "TTFT", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in status["latest"][:_SHOWN_LATEST]:
        is_well = row["outcome"] in ("ok", "cancelled")
        table.add_row(
            row["tenant"] or "(none)",
            Text(row["outcome"], "" if is_well else "red"),
            row["explanation"],
            short_time(row["waited_s"]),
            short_time(row["first_token_s"]),
            str(row["output_tokens"]),
        )
    return table
