"""What a token costs the worker's process, and how late it is: no GPU, no model, no other machine.

    python -m bench.worker_cost replay MODEL_DIR
    python -m bench.worker_cost sim

Both have 256 streams at 75 tokens a second each, which is what an H200 does with Llama-3-8B in AWQ, and count CPU time
of the measured process alone while streams flow and none begins or ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help=__doc__)

_Streams = Annotated[int, typer.Option(help="Streams at once.")]
_Tokens = Annotated[int, typer.Option(help="Tokens of each.")]


@app.command()
def replay(
    model_dir: Annotated[Path, typer.Argument(help="A checkpoint; its config and tokenizer are read.")],
    *,
    streams: _Streams = 256,
    tokens: _Tokens = 600,
    only: Annotated[str, typer.Option(help="Some of bare and worker, separated by commas.")] = "bare,worker",
) -> None:
    """VLLM's AsyncLLM alone, and the whole worker, fed with the same engine steps. One JSON object a line."""
    for subject in only.split(","):
        # In a process of its own: vLLM's configuration and metrics are global.
        _run("bench.worker_cost.replay", subject, str(model_dir), str(streams), str(tokens))


@app.command()
def sim(*, streams: _Streams = 256, tokens: _Tokens = 1_000) -> None:
    """The worker with ``sim``, and the engine alone. One JSON object."""
    _run("bench.worker_cost.sim", str(streams), str(tokens))


def _run(module: str, *arguments: str) -> None:
    subprocess.run((sys.executable, "-m", module, *arguments), check=True)


if __name__ == "__main__":
    app()
