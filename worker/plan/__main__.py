"""``tidegate plan``: how many GPUs a load needs. Reads files and prints; starts nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from worker.plan.gpu import gpu_named
from worker.plan.memory import DoesNotFitError, Memory
from worker.plan.pace import Traffic
from worker.plan.plan import Load, Plan, make_plan
from worker.plan.prices import load_prices
from worker.plan.replicas import Targets
from worker.plan.report import as_object, as_text
from worker.plan.shape import load_shape
from worker.sim_profile import SimProfile, load_profile, shipped_profiles

# As the client's exit codes: refused as it stands.
_DOES_NOT_FIT = 3

app = typer.Typer(
    pretty_exceptions_enable=False, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.command()
def plan(  # noqa: PLR0913 - one argument per option
    *,
    model: Annotated[str, typer.Option(help="Folder of a checkpoint, or the name of a model known here.")],
    gpu: Annotated[str, typer.Option(help="Name of the GPU: h200, h100, ...")],
    rps: Annotated[float, typer.Option(min=0.001, help="Requests per second.")],
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")],
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an output, in the mean.")],
    reserved_output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that the ledger reserves for an output; the mean by default.")
    ] = None,
    kv_use: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the KV blocks to be reserved.")] = 0.8,
    busy: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of the engine's time for more than reading weights.")
    ] = 0.7,
    max_ttft_ms: Annotated[float | None, typer.Option(min=1, help="The longest mean time to a first token.")] = None,
    max_itl_ms: Annotated[float | None, typer.Option(min=0.1, help="The longest mean time between tokens.")] = None,
    memory_share: Annotated[float, typer.Option(min=0.05, max=1, help="The worker's --gpu-memory-utilization.")] = 0.9,
    profile: Annotated[
        str | None, typer.Option(help="Measured profile, by name or path; by default one of that GPU.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of prices; examples/prices.toml shows its form.")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Plan capacity from measured step times: blocks, streams, replicas, times and cost."""
    try:
        found = _profile(profile, gpu)
        planned: Plan = make_plan(
            load_shape(model),
            gpu_named(gpu),
            found,
            Load(
                requests_per_s=rps,
                traffic=Traffic(
                    prompt_tokens=prompt_tokens,
                    output_tokens=output_tokens,
                    reserved_output_tokens=reserved_output_tokens or output_tokens,
                ),
            ),
            memory=Memory(utilization=memory_share, block_size=found.block_size),
            targets=Targets(kv_use=kv_use, busy_share=busy, ttft_s=_seconds(max_ttft_ms), itl_s=_seconds(max_itl_ms)),
            prices=load_prices(prices) if prices else None,
        )
    except DoesNotFitError as error:
        typer.echo(json.dumps({"error": str(error)}) if json_lines else str(error), err=not json_lines)
        raise typer.Exit(_DOES_NOT_FIT) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(json.dumps(as_object(planned)) if json_lines else as_text(planned), nl=json_lines)


def _seconds(milliseconds: float | None) -> float:
    return math.inf if milliseconds is None else milliseconds / 1e3


def _profile(name: str | None, gpu: str) -> SimProfile:
    """The profile of that name or path, or one of that GPU. Raises ``ValueError``."""
    if name is not None:
        return load_profile(name)
    profiles = shipped_profiles()
    for profile in profiles:
        if profile.gpu == gpu.lower():
            return profile
    names = ", ".join(one.name for one in profiles)
    raise ValueError(f"nobody has measured a {gpu!r}: choose one of the profiles with --profile ({names})")


if __name__ == "__main__":
    app(prog_name="tidegate plan")
