"""``make bench``: the data plane beside nothing, three proxies and SMG, in one run on one machine."""

from __future__ import annotations

import json
import resource
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bench.data_plane import handshake
from bench.data_plane.experiment import Measurement, measure, select
from bench.data_plane.figures import as_json, tabulate
from bench.data_plane.processes import StartError
from bench.data_plane.report import markdown, write_into
from bench.data_plane.scenarios import SCENARIOS, Scenario
from bench.data_plane.subjects import SUBJECTS, Site, Subject
from bench.data_plane.toolchain import BUILD, ROOT, ToolchainError, brought, prepare

_DESCRIPTORS = 60_000
_PROMPT_TOKENS = 100

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(  # noqa: PLR0913 - a command line is an argument list
    *,
    only: Annotated[
        str | None, typer.Option(help=f"Some of {', '.join(s.name for s in SUBJECTS)}, separated by commas.")
    ] = None,
    scenarios: Annotated[
        str | None, typer.Option(help=f"Some of {', '.join(s.name for s in SCENARIOS)}, separated by commas.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 1,
    programs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of load, streams, worker and what --only names, built elsewhere; nothing is installed."
        ),
    ] = None,
    as_object: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    document: Annotated[Path | None, typer.Option(help="Markdown file whose table is to be replaced.")] = None,
) -> None:
    """Measure what a relayed token and a request cost, side by side."""
    try:
        subjects = select(only, among=SUBJECTS)
        loads = select(scenarios, among=SCENARIOS)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    _raise_descriptor_limit()
    try:
        tools = prepare() if programs is None else brought(programs)
    except ToolchainError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    folder = BUILD / f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    model_file, prompt_file = handshake.write(folder, prompt_tokens=_PROMPT_TOKENS)
    site = Site(tools=tools, folder=folder, model_file=model_file, prompt_file=prompt_file)
    measurements: list[Measurement] = []
    started_at = time.monotonic()
    with suppress(KeyboardInterrupt):  # broken off, it tells what it has
        for measurement in _measurements(subjects, loads, site, rounds):
            typer.echo(f"[{time.monotonic() - started_at:4.0f} s] {_line(measurement)}", err=True)
            measurements.append(measurement)
    report = as_json(measurements, tools.versions())
    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    text = markdown(tabulate(measurements), command=_command(), versions=tools.versions(), rounds=rounds)
    typer.echo(json.dumps(report) if as_object else text)
    if document is not None:
        write_into(document, text)


def _measurements(
    subjects: Sequence[Subject], loads: tuple[Scenario, ...], site: Site, rounds: int
) -> Iterator[Measurement]:
    for round_ in range(rounds):
        for subject in subjects:
            try:
                yield from measure(subject, loads, site, round_)
            except StartError as error:
                typer.echo(error, err=True)


def _line(m: Measurement) -> str:
    cost = "-" if m.gateway_cpu_s is None else f"{1e6 * m.gateway_cpu_s / max(1, m.messages):.1f} us"
    return (
        f"{m.subject:15} {m.scenario:11} {m.messages / max(m.wall_s, 1e-9):>8,.0f} messages/s, {cost} each; "
        f"TTFT {m.ttft_p50_us or 0:,.0f} us, latency {m.latency_p50_us or 0:,.0f} us; others {m.others_share:.0%}"
        f"{f'; {m.failed} failed: {m.error}' if m.failed else ''}"
    )


def _command() -> str:
    return f"make bench ARGS={shlex.quote(' '.join(sys.argv[1:]))}" if len(sys.argv) > 1 else "make bench"


def _raise_descriptor_limit() -> None:
    """Ten thousand streams are as many connections where HTTP/1.1 is spoken, and twice as many in a proxy."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(_DESCRIPTORS, hard),) * 2)
    except ValueError:  # not root
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    app(prog_name=f"python -m bench.data_plane (in {ROOT})")
