"""The ``tidegate`` command.

Exit codes: 0 done; 1 a local failure, such as a child process that ended; 2 wrong command line; 3 the request was
refused as it stands; 4 the server is full; 5 the server is unavailable; 6 the deadline passed; 7 the server has a
defect; 130 interrupted by Ctrl-C, SIGTERM or SIGHUP.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from tidegate.client import bench as benching
from tidegate.client import catalogue
from tidegate.client import chat as chatting
from tidegate.client.arguments import (
    Listen,
    MaxOutputTokens,
    Model,
    OutputTokens,
    PromptTokens,
    Seed,
    System,
    Target,
    TimeoutSeconds,
    check_text,
    read_stdin,
)
from tidegate.client.child import ChildFailedError
from tidegate.client.demo import demo as run_demo
from tidegate.client.doctor import print_findings
from tidegate.client.errors import TidegateError
from tidegate.client.explain import ExitCode, exit_code
from tidegate.client.health import GATEWAY, WORKER, print_health
from tidegate.client.output import AnswerView, JsonView, TextView
from tidegate.client.serve import serve as run_serve
from tidegate.client.stack import EngineKind, StackOptions, free_port, state_dir
from tidegate.client.top import top as run_top

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 done, 1 local failure, 2 wrong command line, 3 refused as it stands, 4 server full, "
        "5 server unavailable, 6 deadline passed, 7 defect of the server, 130 interrupted."
    ),
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Engine = Annotated[EngineKind, typer.Option(help="vllm; or sim: made-up tokens at the pace of a GPU, for a first try.")]
ModelDir = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Checkpoint to serve; the embedded model by default."),
]

_DEFAULT_TARGET = "127.0.0.1:50051"
_NOTES = Console(stderr=True)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"tidegate {version('tidegate')}")
        raise typer.Exit


@app.callback()
def tidegate(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Talk to a Tidegate gateway, or run one here."""


@app.command()
def chat(  # noqa: PLR0913 - one argument per option
    prompt: Annotated[
        str | None, typer.Argument(callback=check_text, help="One question. Without it: a conversation, or stdin.")
    ] = None,
    *,
    target: Target = _DEFAULT_TARGET,
    model: Model = None,
    system: System = None,
    max_output_tokens: MaxOutputTokens = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy.")] = None,
    seed: Seed = None,
    timeout: TimeoutSeconds = 300.0,
    json_lines: Json = False,
) -> None:
    """Ask one question, or hold a conversation. Ctrl-C stops a running answer."""
    options = chatting.ChatOptions(
        target=target,
        model=model,
        system=system,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        seed=seed,
        timeout_s=timeout,
    )
    view = _view(json_lines=json_lines)
    if prompt is None and sys.stdin is not None and sys.stdin.isatty():
        import readline  # noqa: F401, PLC0415 - gives input() its line editing, as soon as it is imported

        raise typer.Exit(chatting.converse(options, view))
    question = read_stdin() if prompt is None or prompt == "-" else prompt
    _finish(chatting.ask_once(options, question, view), view)


@app.command()
def models(*, target: Target = _DEFAULT_TARGET, json_lines: Json = False) -> None:
    """List the models that are served, with their limits."""
    _finish(catalogue.print_models(target, json_lines=json_lines), _view(json_lines=json_lines))


@app.command()
def tokenize(
    prompt: Annotated[str, typer.Argument(callback=check_text, help="A question; `-` reads it from stdin.")],
    *,
    target: Target = _DEFAULT_TARGET,
    model: Model = None,
    system: System = None,
    json_lines: Json = False,
) -> None:
    """Show what the model would be given: the rendered prompt and its token ids."""
    question = read_stdin() if prompt == "-" else prompt
    printing = catalogue.print_tokens(target, model, question, system=system, json_lines=json_lines)
    _finish(printing, _view(json_lines=json_lines))


@app.command()
def replay(
    log: Annotated[Path, typer.Argument(help="What `python -m gateway --decision-log FILE` has written.")],
) -> None:
    """Make a gateway's decisions again, by the policies installed here, and print those that come out otherwise."""
    raise typer.Exit(subprocess.run([sys.executable, "-m", "gateway.replay", str(log)], check=False).returncode)  # noqa: S603


@app.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
def plan(
    arguments: Annotated[list[str] | None, typer.Argument(help="`tidegate plan --help` shows them.")] = None,
) -> None:
    """Tell how many GPUs a load needs, from measured step times: blocks, streams, replicas, TTFT, cost."""
    command = [sys.executable, "-m", "worker.plan", *(arguments or ["--help"])]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603


@app.command()
def doctor(*, target: Target = _DEFAULT_TARGET) -> None:
    """Check, step by step, that a gateway answers, can serve, and generates a token."""
    _finish(print_findings(target), _view(json_lines=False))


@app.command()
def health(
    *,
    target: Target = _DEFAULT_TARGET,
    worker: Annotated[bool, typer.Option("--worker", help="Ask a worker, not a gateway.")] = False,
) -> None:
    """Print SERVING or NOT_SERVING. The exit code is 0 for SERVING: for scripts and health checks of containers."""
    _finish(print_health(target, WORKER if worker else GATEWAY), _view(json_lines=False))


@app.command()
def top(
    *,
    admin: Annotated[
        str, typer.Option(envvar="TIDEGATE_ADMIN", help="Admin port of the gateway, host:port.")
    ] = "127.0.0.1:9464",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    json_lines: Json = False,
) -> None:
    """Watch the fleet as a gateway sees it: blocks, queue, first tokens, breakers, refusals."""
    watching = run_top(admin, interval_s=interval, is_once=once, json_lines=json_lines)
    _finish(watching, _view(json_lines=json_lines))


@app.command()
def bench(  # noqa: PLR0913 - one argument per option
    *,
    target: Target = _DEFAULT_TARGET,
    model: Model = None,
    concurrency: Annotated[str, typer.Option(help="Requests sent at once; several, separated by commas.")] = "1,32",
    rounds: Annotated[int, typer.Option(min=1, help="How often each burst is repeated.")] = 1,
    prompt_tokens: PromptTokens = 512,
    output_tokens: OutputTokens = 128,
    seed: Annotated[int, typer.Option(help="Chooses the prompts.")] = 0,
    json_lines: Json = False,
) -> None:
    """Measure TTFT, ITL and tokens per second with bursts of equal requests."""
    try:
        bursts = [int(count) for count in concurrency.split(",")]
    except ValueError:
        bursts = []
    if not bursts or min(bursts) < 1:
        raise typer.BadParameter("numbers from 1, separated by commas", param_hint="--concurrency")
    options = benching.BenchOptions(
        target=target,
        model=model,
        bursts=bursts,
        rounds=rounds,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        seed=seed,
    )
    _finish(benching.bench(options, json_lines=json_lines), _view(json_lines=json_lines))


@app.command()
def demo(
    *,
    prompt: Annotated[str, typer.Option(callback=check_text, help="What to ask.")] = "What is the capital of France?",
    engine: Engine = EngineKind.VLLM,
    model_dir: ModelDir = None,
) -> None:
    """Start a worker and a gateway, stream one answer with its figures, and stop everything."""
    listen = f"127.0.0.1:{free_port()}"
    options = StackOptions(engine=engine, model_dir=model_dir, listen=listen, state_dir=state_dir())
    _finish(run_demo(options, prompt, out=Console(), notes=_NOTES), _view(json_lines=False))


@app.command()
def serve(
    *,
    listen: Listen = _DEFAULT_TARGET,
    engine: Engine = EngineKind.VLLM,
    model_dir: ModelDir = None,
) -> None:
    """Start a worker and a gateway, and serve until Ctrl-C."""
    options = StackOptions(engine=engine, model_dir=model_dir, listen=listen, state_dir=state_dir())
    _finish(run_serve(options, notes=_NOTES), _view(json_lines=False))


def _view(*, json_lines: bool) -> AnswerView:
    return JsonView(sys.stdout) if json_lines else TextView(sys.stdout, sys.stderr)


def _finish(command: Coroutine[Any, Any, ExitCode | None], view: AnswerView) -> NoReturn:
    """Run ``command`` to its end and exit with the code that says how it went."""
    try:
        code = asyncio.run(_interruptible(command)) or ExitCode.OK
    except TidegateError as error:
        view.fail(error)
        code = exit_code(error)
    except ChildFailedError as error:
        _NOTES.print(f"[red]{error}[/]. The end of {error.log_path}:", highlight=False, soft_wrap=True)
        for line in error.tail:
            _NOTES.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
        code = ExitCode.FAILED
    except BrokenPipeError:  # typer knows what to do
        raise
    except OSError as error:
        _NOTES.print(f"{error}", style="red", markup=False, highlight=False, soft_wrap=True)
        code = ExitCode.FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = ExitCode.INTERRUPTED
    raise SystemExit(code)


async def _interruptible(command: Coroutine[Any, Any, ExitCode | None]) -> ExitCode | None:
    """Clean up on SIGTERM and SIGHUP as on Ctrl-C, for which asyncio.run cares."""
    task = asyncio.ensure_future(command)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    return await task


def main() -> None:
    """Entry point of the ``tidegate`` script."""
    app()


if __name__ == "__main__":
    main()
