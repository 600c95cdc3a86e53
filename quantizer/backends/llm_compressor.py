"""The second backend: llm-compressor, in a process and an environment of its own.

It asks for other versions of compressed-tensors and transformers than vLLM, so they cannot be installed together. Its
environment holds what differs and borrows the rest, PyTorch above all, from ours: 63 MB, where one with everything of
its own takes 4.3 GB. It is made on first use; what crosses the border is a JSON file one way and a directory the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch
from safetensors.torch import load_file

from quantizer.backends.autoawq import named_linears
from quantizer.backends.backend import Quantized
from quantizer.calibration.packing import Blocks
from quantizer.errors import BackendError, RecipeError
from quantizer.progress import Progress
from quantizer.recipe import Recipe
from quantizer.source import Source, number_format, read_config
from quantizer.staging import Staging

_JOB = Path(__file__).with_name("llm_compressor_job.py")
# What llm-compressor 0.14 pins, and what these in turn need in another version than ours.
_OWN_VERSIONS = {
    "llmcompressor": "0.14.0.1",
    "compressed-tensors": "0.19.0",
    "transformers": "5.17.0",
    "huggingface-hub": "1.33.0",
}


class LlmCompressorBackend:
    """See ``backend.Backend`` for the contract. A killed run starts again: there are no layers to go on from."""

    def __init__(self, environment: Path) -> None:
        self._environment = environment

    def versions(self) -> dict[str, str]:
        """As they are pinned, by which the other two are known."""
        return {name: _OWN_VERSIONS[name] for name in ("llmcompressor", "compressed-tensors")}

    def check(self, source: Source, recipe: Recipe) -> None:
        """Group sizes only; llm-compressor knows its architectures itself, and says so."""
        for name, linear in named_linears(source.model.base_model.layers):
            if linear.in_features % recipe.group_size:
                raise RecipeError(f"group size {recipe.group_size} does not divide {name}: {linear.in_features} inputs")

    def quantize(
        self, source: Source, recipe: Recipe, blocks: Blocks, staging: Staging, progress: Progress
    ) -> Quantized:
        """Hand the job over, and take up the checkpoint that comes of it."""
        with progress.stage("installing llm-compressor"):
            self._install()
        written = staging.directory / "llm-compressor"
        job = staging.directory / "llm-compressor.json"
        content = {
            "source": str(source.directory.absolute()),
            "out": str(written),
            "group_size": recipe.group_size,
            "blocks": blocks.token_ids,
            "mask": blocks.mask,
        }
        job.write_text(json.dumps(content), encoding="utf-8")
        with progress.stage("quantizing with llm-compressor"):
            _call([str(self._python), str(_JOB), str(job)], "llm-compressor failed", cwd=staging.directory)
        dtype = number_format(source.config)
        tensors: dict[str, torch.Tensor] = {}
        for path in written.glob("*.safetensors"):
            tensors |= load_file(path)
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return Quantized(tensors=tensors, quantization_config=read_config(written)["quantization_config"])

    @property
    def _python(self) -> Path:
        return self._environment / "bin" / "python"

    def _install(self) -> None:
        pins = [f"{name}=={version}" for name, version in _OWN_VERSIONS.items()]
        marker = self._environment / "installed.txt"
        if marker.exists() and marker.read_text(encoding="utf-8").split() == pins:
            return
        self._environment.parent.mkdir(parents=True, exist_ok=True)
        failure = "llm-compressor could not be installed"
        _call([sys.executable, "-m", "venv", "--clear", str(self._environment)], failure)
        pip = [str(self._python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        _call([*pip, *pins], failure)
        (own,) = self._environment.glob("lib/python*/site-packages")
        # Python appends the lines of such files to its search path, so that what the environment holds goes first.
        ours = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        (own / "borrowed.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
        marker.write_text("\n".join(pins), encoding="utf-8")


def _call(command: list[str], failure: str, cwd: Path | None = None) -> None:
    """Run a command of ours. Raises ``BackendError`` with the end of what it wrote."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BackendError(f"{failure}:\n{(done.stderr or done.stdout)[-2000:]}")
