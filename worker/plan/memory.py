"""What of a GPU's memory is left for KV blocks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.plan.gpu import Gpu
from worker.plan.shape import ModelShape

# Activations of a full step, CUDA graphs and the CUDA context: half of an H200 held 31,838 blocks of 2 MiB beside 5.7
# GB of weights, and 2.9 GB were left.
OVERHEAD_BYTES = 3 * 10**9
_GPU_COUNTS = (2, 4, 8)  # that share a model
_GB = 10**9


class DoesNotFitError(Exception):
    """The load cannot be served so; the message says what could be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How much of a GPU the engine may take, and in what units it holds the KV cache."""

    utilization: float
    block_size: int

    def blocks(self, shape: ModelShape, gpu: Gpu) -> int:
        """KV blocks beside the weights; 0 or less where the weights do not fit."""
        left = int(gpu.memory_bytes * self.utilization) - shape.weight_bytes - OVERHEAD_BYTES
        return left // (shape.kv_bytes_per_token * self.block_size)


def blocks_for(memory: Memory, shape: ModelShape, gpu: Gpu, known: Sequence[Gpu], *, tokens: int) -> int:
    """The KV blocks on one ``gpu``. Raises ``DoesNotFitError`` where a request of ``tokens`` would find no room.

    The error names GPUs of ``known`` that would do.
    """
    blocks = memory.blocks(shape, gpu)
    if blocks * memory.block_size >= tokens:
        return blocks
    needed = shape.weight_bytes + OVERHEAD_BYTES + tokens * shape.kv_bytes_per_token
    would = [one.name for one in known if memory.blocks(shape, one) * memory.block_size >= tokens]
    would += [
        f"{count} x {gpu.name} (tensor parallel)" for count in _GPU_COUNTS if fits_on(memory, shape, gpu, count, tokens)
    ][:1]
    raise DoesNotFitError(
        f"{shape.name} does not fit a {gpu.name}: weights of {shape.weight_bytes / _GB:.1f} GB, "
        f"{OVERHEAD_BYTES / _GB:.0f} GB for the engine and a KV cache for one request of {tokens} tokens need "
        f"{needed / _GB:.1f} GB, and the engine may have {gpu.memory_bytes * memory.utilization / _GB:.1f} GB. "
        f"What would fit: {', '.join(would) or 'none of the GPUs known here'}; "
        f"or weights of at most {_largest_weights(memory, shape, gpu, tokens) / _GB:.1f} GB (4 bits each: "
        f"{shape.parameters / 2 / _GB:.1f} GB or somewhat more)."
    )


def fits_on(memory: Memory, shape: ModelShape, gpu: Gpu, count: int, tokens: int) -> bool:
    """Whether ``count`` such GPUs together hold the model, each with an engine's overhead of its own."""
    left = count * (int(gpu.memory_bytes * memory.utilization) - OVERHEAD_BYTES) - shape.weight_bytes
    return left >= tokens * shape.kv_bytes_per_token


def _largest_weights(memory: Memory, shape: ModelShape, gpu: Gpu, tokens: int) -> int:
    free = int(gpu.memory_bytes * memory.utilization) - OVERHEAD_BYTES - tokens * shape.kv_bytes_per_token
    return max(0, free)
