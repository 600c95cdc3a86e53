"""The manifest: what a checkpoint is made of, so that whoever loads it can prove that it is the one that was measured.

Three digests are the ones a worker computes by itself: ``checkpoint_sha256`` over config.json and the weight files,
``tokenizer_sha256`` of tokenizer.json, ``chat_template_sha256`` of the template's text (docs/quantizer.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from quantizer.errors import CheckpointError

FILE_NAME = "tidegate_manifest.json"
FORMAT = "tidegate.manifest/1"
REPORT_FILES = ("report.html", "report.json")  # they hold times of day, so they are no part of what is hashed
_CHUNK_BYTES = 4 * 1024 * 1024


def describe(directory: Path) -> dict[str, Any]:
    """Hash every file and every tensor of a finished checkpoint directory."""
    names = sorted(
        path.name for path in directory.iterdir() if path.is_file() and path.name not in (FILE_NAME, *REPORT_FILES)
    )
    files = {name: {"bytes": (directory / name).stat().st_size, "sha256": _sha256(directory / name)} for name in names}
    return {
        "format": FORMAT,
        "checkpoint_sha256": _checkpoint_digest(files),
        **tokenizer_digests(directory),
        "files": files,
        "tensors": {name: digest for path in weight_files(directory) for name, digest in _tensor_digests(path)},
    }


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint; None if it has none. Raises ``CheckpointError`` if it is not readable."""
    path = directory / FILE_NAME
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    match manifest:
        case {"format": format_, "files": dict(files), "tensors": dict()} if format_ == FORMAT:
            if all(isinstance(file, dict) and {"bytes", "sha256"} <= file.keys() for file in files.values()):
                return dict(manifest)
    raise CheckpointError(f"{path}: not a manifest of the format {FORMAT}")


def differences(directory: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What in ``directory`` is not as the manifest says: a missing file, a cut one, one with other bytes."""
    problems = []
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != expected["bytes"]:
            problems.append(f"{name} is {size} bytes long; the manifest says {expected['bytes']}")
        elif _sha256(path) != expected["sha256"]:
            changed = _changed_tensors(path, manifest["tensors"])
            problems.append(f"{name} is not the file that was measured: its SHA-256 differs{changed}")
    return problems


def unlike(paths: Iterable[Path], manifest: Mapping[str, Any]) -> list[str]:
    """The names of those files whose bytes the manifest does not have under their names."""
    return [path.name for path in paths if manifest["files"].get(path.name, {}).get("sha256") != _sha256(path)]


def tokenizer_digests(directory: Path) -> dict[str, str]:
    """Digests of tokenizer.json and of the chat template's text; empty where there is none."""
    tokenizer = directory / "tokenizer.json"
    template = chat_template(directory)
    return {
        "tokenizer_sha256": _sha256(tokenizer) if tokenizer.exists() else "",
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest() if template else "",
    }


def chat_template(directory: Path) -> str:
    """The template's text, wherever the checkpoint keeps it: tools move it between two files.

    Raises ``CheckpointError``.
    """
    path = directory / "chat_template.jinja"
    config = directory / "tokenizer_config.json"
    try:
        if path.exists():
            return path.read_text(encoding="utf-8")
        path = config
        template = json.loads(config.read_bytes()).get("chat_template", "") if config.exists() else ""
        if isinstance(template, list):  # several, by name
            template = next((item["template"] for item in template if item.get("name") == "default"), "")
        return str(template or "")
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: no chat template can be read: {error!r}") from error


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files, by name."""
    return sorted(directory.glob("*.safetensors"))


def source_digest(directory: Path) -> str:
    """One digest for a dense model directory: config.json and the weights."""
    names = ["config.json", *(path.name for path in weight_files(directory))]
    return _checkpoint_digest(
        {
            name: {"bytes": (directory / name).stat().st_size, "sha256": _sha256(directory / name)}
            for name in names
            if (directory / name).exists()
        }
    )


def _checkpoint_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    total = hashlib.sha256()
    for name in ["config.json", *sorted(name for name in files if name.endswith(".safetensors"))]:
        total.update(f"{name}\0{files[name]['bytes']}\0{files[name]['sha256']}\n".encode())
    return total.hexdigest()


def _tensor_digests(path: Path) -> Iterator[tuple[str, str]]:
    """SHA-256 over the bytes of each tensor as they stand in the file."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
        for name, tensor in sorted(header.items()):
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                file.seek(8 + header_bytes + start)
                yield name, hashlib.sha256(file.read(end - start)).hexdigest()


def _changed_tensors(path: Path, expected: Mapping[str, str]) -> str:
    try:
        with safe_open(path, framework="numpy"):
            pass
        changed = [name for name, digest in _tensor_digests(path) if expected.get(name) != digest]
    except (SafetensorError, ValueError, OSError):
        return " (its header is damaged)"
    return f" (in {', '.join(changed[:3])}{' and others' if len(changed) > 3 else ''})" if changed else ""  # noqa: PLR2004


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
