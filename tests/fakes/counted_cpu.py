"""A platform for vLLM: the CPU, but Ray can count it. vLLM's own for a CPU has nothing that Ray could reserve."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class CountedCpu(CpuPlatform):  # type: ignore[misc]
    """Each part of an engine takes one of the GPUs that Ray was told of, and computes on the CPU."""

    ray_device_key = "GPU"
