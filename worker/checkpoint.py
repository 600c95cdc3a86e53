"""The checkpoint directory that a worker serves: tokenizer, chat template, canaries, sampling defaults and digests.

Code in a checkpoint is never run: there is no ``trust_remote_code`` here, and a checkpoint that needs it is refused by
the engine. What stands in the directory is read once, at start.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from tidegate.inference.v1 import generation_pb2
from tidegate.worker.v1 import worker_service_pb2
from worker import canaries, weights
from worker.job import range_violations
from worker.manifest import FILE_NAME, ManifestError, PromptHistogram, read_manifest, verify

_LOGGER = logging.getLogger(__name__)

# Fields of generation_config.json that are sampling defaults, with the field of SamplingOptions that each one sets.
_DEFAULTS = {
    "max_new_tokens": "max_output_tokens",
    "min_new_tokens": "min_output_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}


class CheckpointError(Exception):
    """The directory does not hold a usable checkpoint. The message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint's small files, and digests (lower-case hexadecimal SHA-256) of all that decides its answers."""

    directory: Path
    tokenizer_json: bytes
    tokenizer_config: bytes  # b"{}" where there is none
    chat_template: str  # "" where there is none
    checkpoint_sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str  # "" where there is no template
    canaries: tuple[worker_service_pb2.Canary, ...]
    sampling_defaults: generation_pb2.SamplingOptions
    calibration: PromptHistogram | None  # of its manifest


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read and check ``directory``. Reads every byte of the weights: call it off the event loop.

    Raises ``CheckpointError``.
    """
    if not _is_directory(directory):
        raise CheckpointError(f"{directory}: no such directory")
    config = directory / "config.json"
    _read_object(config)
    tokenizer_json = _read(directory / "tokenizer.json")
    tokenizer_config = _read_object(directory / "tokenizer_config.json", optional=True)
    chat_template = _chat_template(directory, tokenizer_config)
    try:
        manifest = read_manifest(directory)
        files = (config, *weights.weight_files(directory))
        digests = {path.name: weights.file_digest(path) for path in files}
        if manifest is None:
            _LOGGER.info("%s has no %s: what it answers has not been measured", directory, FILE_NAME)
        else:
            verify(directory, manifest, digests)
        checkpoint_sha256 = weights.digest(files, digests)
    except (weights.DamagedWeightsError, ManifestError) as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}") from error
    return Checkpoint(
        directory=directory,
        tokenizer_json=tokenizer_json,
        tokenizer_config=json.dumps(tokenizer_config).encode(),
        chat_template=chat_template,
        checkpoint_sha256=checkpoint_sha256,
        tokenizer_sha256=hashlib.sha256(tokenizer_json).hexdigest(),
        chat_template_sha256=hashlib.sha256(chat_template.encode()).hexdigest() if chat_template else "",
        canaries=_canaries(directory) if chat_template else (),
        sampling_defaults=_sampling_defaults(directory / "generation_config.json"),
        calibration=manifest.calibration if manifest else None,
    )


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name that is too long, or a directory above it that is not ours
        raise CheckpointError(f"{path}: {error.strerror}") from error


def _canaries(directory: Path) -> tuple[worker_service_pb2.Canary, ...]:
    path = directory / "canaries.json"
    if not path.exists():
        _LOGGER.info("%s: no canaries.json; rendering the canaries with transformers", directory)
        from worker import canary_reference  # noqa: PLC0415 - loads transformers, which takes seconds

        try:
            return canary_reference.render_canaries(directory)
        except Exception as error:  # the libraries that read a tokenizer raise whatever comes
            raise CheckpointError(f"{directory}: its canaries cannot be rendered: {_words(error)}") from error
    try:
        return canaries.read_canaries(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _chat_template(directory: Path, tokenizer_config: dict[str, Any]) -> str:
    """The template's text, looked for where transformers looks, in its order."""
    path = directory / "chat_template.jinja"
    if path.exists():
        try:
            return _read(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: {error}") from error
    template = tokenizer_config.get("chat_template") or ""
    if isinstance(template, list):  # several, by name
        named = [item for item in template if isinstance(item, dict)]
        template = next((item.get("template") for item in named if item.get("name") == "default"), "")
    if not isinstance(template, str) or not _is_unicode(template):
        raise CheckpointError(f"{directory / 'tokenizer_config.json'}: chat_template is not text")
    return template


def _is_unicode(text: str) -> bool:
    """JSON can hold halves of surrogate pairs, which are in no encoding."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _sampling_defaults(path: Path) -> generation_pb2.SamplingOptions:
    config = _read_object(path, optional=True)
    defaults = {field: config[name] for name, field in _DEFAULTS.items() if config.get(name) is not None}
    try:
        options = json_format.ParseDict(defaults, generation_pb2.SamplingOptions())
    except (json_format.ParseError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    # Every request that does not say otherwise would be refused.
    if options.min_output_tokens < 0:
        raise CheckpointError(f"{path}: min_new_tokens must be at least 0, and is {config['min_new_tokens']}")
    for violation in range_violations(options):
        name = next(key for key, field in _DEFAULTS.items() if violation.field == f"sampling.{field}")
        raise CheckpointError(f"{path}: {name} {violation.description}, and is {config[name]}")
    return options


def _words(error: Exception) -> str:
    """Of an error of any library, in one line; some have none but their type."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error


def _read_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value
