"""Memory of the GPUs that have a name here, in ``gpus.json``: MiB, as nvidia-smi shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A kind of GPU."""

    name: str
    memory_bytes: int


def known_gpus() -> tuple[Gpu, ...]:
    """All of them, the smallest first."""
    sizes: dict[str, int] = json.loads(Path(__file__).with_name("gpus.json").read_text(encoding="utf-8"))
    gpus = (Gpu(name=name, memory_bytes=mib * _MIB) for name, mib in sizes.items())
    return tuple(sorted(gpus, key=lambda gpu: gpu.memory_bytes))


def gpu_named(name: str) -> Gpu:
    """The GPU of that name. Raises ``ValueError``."""
    for gpu in known_gpus():
        if gpu.name == name.lower():
            return gpu
    raise ValueError(f"no GPU {name!r} here; known are: {', '.join(gpu.name for gpu in known_gpus())}")
