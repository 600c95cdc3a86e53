"""The manifest beside a checkpoint's weights: whether the directory still is what the quantizer measured.

vLLM loads a checkpoint with a flipped bit or another model's tokenizer without a word. A manifest (docs/quantizer.md)
holds the SHA-256 of every file, so whatever is not as it was measured is refused by its name. A checkpoint without one
is served as it is: nobody has measured it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker import weights

FILE_NAME = "tidegate_manifest.json"
_FORMAT = "tidegate.manifest/1"
_NAMED_TENSORS = 3
# Read wherever they are there, and in place of what stands elsewhere.
_ANSWERS_DEPEND_ON = ("chat_template.jinja", "generation_config.json")


class ManifestError(Exception):
    """The manifest cannot be read, or the directory is not what it describes. The message names every file at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptHistogram:
    """How the prompts of the calibration were distributed: ``counts`` has a row for each bucket of prompt lengths."""

    prompt_token_edges: tuple[int, ...]
    turn_edges: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a worker needs of it. ``files`` has the length and the digest of each, by name."""

    files: Mapping[str, tuple[int, str]]
    tensors: Mapping[str, str]
    calibration: PromptHistogram | None


def read_manifest(directory: Path) -> Manifest | None:
    """The directory's manifest; None if it has none. Raises ``ManifestError``, and ``OSError``."""
    path = directory / FILE_NAME
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != _FORMAT:
            raise ManifestError(f"{path}: the format is {content['format']!r}, not {_FORMAT!r}")
        return Manifest(
            files={name: (int(file["bytes"]), str(file["sha256"])) for name, file in content["files"].items()},
            tensors={name: str(digest) for name, digest in content["tensors"].items()},
            calibration=_histogram(content["calibration"].get("histogram")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ManifestError(f"{path}: not a manifest: {error!r}") from error


def verify(directory: Path, manifest: Manifest, digests: Mapping[str, str]) -> None:
    """Compare every file; ``digests`` has those, by name, that the caller has computed already.

    Raises ``ManifestError``, and ``OSError``.
    """
    problems = [*_differences(directory, manifest, digests), *_strangers(directory, manifest)]
    if problems:
        raise ManifestError(f"{directory} is not the checkpoint that {FILE_NAME} describes: {'; '.join(problems)}")


def _differences(directory: Path, manifest: Manifest, digests: Mapping[str, str]) -> Iterator[str]:
    for name, (size, digest) in sorted(manifest.files.items()):
        path = directory / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} is {path.stat().st_size} bytes long, not {size}"
        elif (digests.get(name) or weights.file_digest(path)) != digest:
            yield f"{name} has another SHA-256{_changed_tensors(path, manifest.tensors)}"


def _strangers(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Weights that an engine would load, and what else would change its answers, though nobody measured them."""
    weights_there = sorted(directory.glob("*.safetensors")) + sorted(directory.glob("*.bin"))
    for path in (*weights_there, *(directory / name for name in _ANSWERS_DEPEND_ON if (directory / name).exists())):
        if path.name not in manifest.files:
            yield f"{path.name} does not belong to it"


def _changed_tensors(path: Path, expected: Mapping[str, str]) -> str:
    """For a weight file, the first few tensors that are not as they were."""
    if path.suffix != ".safetensors":
        return ""
    try:
        changed = [name for name, digest in _tensor_digests(path) if expected.get(name) != digest]
    except (ValueError, KeyError, TypeError, AttributeError):
        return " (its header is damaged)"
    more = " and others" if len(changed) > _NAMED_TENSORS else ""
    return f" (changed: {', '.join(changed[:_NAMED_TENSORS])}{more})" if changed else ""


def _tensor_digests(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(header_bytes))
        for name, tensor in sorted(header.items()):
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                file.seek(8 + header_bytes + start)
                yield name, hashlib.sha256(file.read(end - start)).hexdigest()


def _histogram(value: Any) -> PromptHistogram | None:
    if value is None:
        return None
    histogram = PromptHistogram(
        prompt_token_edges=tuple(map(int, value["prompt_token_edges"])),
        turn_edges=tuple(map(int, value["turn_edges"])),
        counts=tuple(tuple(map(int, row)) for row in value["counts"]),
    )
    rows, columns = len(histogram.prompt_token_edges) + 1, len(histogram.turn_edges) + 1
    if len(histogram.counts) != rows or any(len(row) != columns or min(row) < 0 for row in histogram.counts):
        raise ValueError(f"calibration.histogram needs {rows} rows of {columns} counts")
    return histogram
