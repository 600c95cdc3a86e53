"""Safe saving: finished layers survive a kill, and a checkpoint becomes visible whole or not at all.

Beside the target ``OUT`` stands ``.OUT.staging``, on the same file system. Every file in it is written under another
name, synced and renamed, so a file that can be seen is complete:

    lock                      held by the run that works here
    key                       which source, recipe, calibration and versions the layers belong to
    layer-0007.safetensors    a finished layer
    inputs-0008.safetensors   what enters the next one; written before the layer that produced it is
    checkpoint/               the checkpoint, built at the end and renamed to OUT
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from quantizer.errors import TargetError

Tensors = dict[str, torch.Tensor]


class Staging:
    """The working directory of one target. Make it with ``open_staging``."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._directory = target.parent / f".{target.name}.staging"

    @property
    def directory(self) -> Path:
        """Where the run works; kept when a checkpoint is refused."""
        return self._directory

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint is built."""
        return self._directory / "checkpoint"

    def claim(self, key: str) -> None:
        """Keep what an earlier run with the same key has finished, and delete what one with another key has."""
        marker = self._directory / "key"
        if not marker.exists() or marker.read_text(encoding="utf-8") != key:
            marker.unlink(missing_ok=True)  # first: what a kill leaves from here on is nobody's
            for path in self._directory.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            _write_text(marker, key)

    def finished_layers(self) -> int:
        """How many layers, counted from the first one, are there already."""
        count = 0
        while self._layer(count).exists():
            count += 1
        return count

    def save_layer(self, index: int, tensors: Tensors, next_inputs: torch.Tensor) -> None:
        """Keep layer ``index`` and what enters the one after it."""
        _write_tensors(self._inputs(index + 1), {"hidden_states": next_inputs.cpu().contiguous()})
        _write_tensors(self._layer(index), tensors)
        self._inputs(index).unlink(missing_ok=True)

    def inputs(self, index: int) -> torch.Tensor:
        """What enters layer ``index``; layer ``index - 1`` has been saved."""
        return load_file(self._inputs(index))["hidden_states"].clone()

    def layer(self, index: int) -> Tensors:
        """A finished layer."""
        return load_file(self._layer(index))

    def start_checkpoint(self) -> Path:
        """An empty directory for the checkpoint."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        self.checkpoint.mkdir()
        return self.checkpoint

    def publish(self) -> None:
        """Make the checkpoint visible as the target, on disk and for every reader. Raises ``TargetError``."""
        for path in self.checkpoint.iterdir():
            path.chmod(0o644)  # safetensors writes 0600, which a server of another user cannot read
            _sync(path)
        self.checkpoint.chmod(0o755)
        _sync(self.checkpoint)
        try:
            self.checkpoint.rename(self._target)  # fails if the target holds anything
        except OSError as error:
            raise TargetError(f"{self._target}: {error.strerror}") from error
        _sync(self._target.parent)
        self.discard()

    def discard(self) -> None:
        """Delete everything that was only needed to get here."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _layer(self, index: int) -> Path:
        return self._directory / f"layer-{index:04}.safetensors"

    def _inputs(self, index: int) -> Path:
        return self._directory / f"inputs-{index:04}.safetensors"


@contextmanager
def open_staging(target: Path) -> Iterator[Staging]:
    """Hold the staging directory of ``target`` for this process alone. Raises ``TargetError`` if another one has it."""
    staging = Staging(target)
    staging.directory.mkdir(parents=True, exist_ok=True)
    with (staging.directory / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetError(f"{target}: another run is working on it") from error
        yield staging


def _write_tensors(path: Path, tensors: Tensors) -> None:
    partial = path.with_name(f".{path.name}")
    save_file(tensors, partial)
    _settle(partial, path)


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8")
    _settle(partial, path)


def _settle(partial: Path, path: Path) -> None:
    _sync(partial)
    partial.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
