"""What stands in a checkpoint's weight files: whether they are complete, and the digest that names them.

vLLM loads quantized checkpoints with missing or cut shards without a word, and the model then speaks nonsense. So every
shard that the index names has to exist, and every safetensors file has to be as long as its header says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# A header is a few hundred bytes per tensor; the format's own limit.
_MAX_HEADER_BYTES = 100_000_000


class DamagedWeightsError(Exception):
    """A weight file is missing or cut. ``path`` is the file."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The checkpoint's weight files, by name. Raises ``DamagedWeightsError``."""
    files = sorted(path for pattern in ("*.safetensors", "*.bin") for path in directory.glob(pattern))
    for shard in _indexed_shards(directory):
        if shard not in files:
            raise DamagedWeightsError(shard, "named by the checkpoint's index, but not there")
    for path in files:
        if path.suffix == ".safetensors":
            _check_length(path)
    return tuple(files)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as lower-case hexadecimal. Reads everything: seconds for large weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(paths: Iterable[Path], digests: Mapping[str, str]) -> str:
    """SHA-256 over name, length and digest of each file; ``digests`` has the ``file_digest`` of each by name."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{path.stat().st_size}\0{digests[path.name]}\n".encode())
    return total.hexdigest()


def _indexed_shards(directory: Path) -> set[Path]:
    shards: set[Path] = set()
    for name in _INDEX_FILES:
        index = directory / name
        if not index.exists():
            continue
        try:
            shards |= {directory / shard for shard in json.loads(index.read_bytes())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedWeightsError(index, f"not an index of shards: {error}") from error
    return shards


def _check_length(path: Path) -> None:
    """The format: 8 bytes little-endian header length, JSON header with each tensor's data_offsets, data."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > min(size, _MAX_HEADER_BYTES):
                raise DamagedWeightsError(path, "the header is cut")
            header = json.loads(file.read(header_bytes))
        data_bytes = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"))
        expected = 8 + header_bytes + data_bytes
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DamagedWeightsError(path, f"not a safetensors file: {error}") from error
    if size != expected:
        raise DamagedWeightsError(path, f"{size} bytes long, not {expected} as its header says")
