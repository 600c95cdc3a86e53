"""Builds the renderers of models, one for each checkpoint however many workers serve it."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import json
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.renderer import Renderer
from gateway.workers.client import WorkerClient
from gateway.workers.errors import UnusableWorkerError
from tidegate.inference.v1 import model_pb2
from tidegate.worker.v1 import worker_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """The files of a checkpoint that decide how prompts are rendered and tokenised. Empty where there is none."""

    tokenizer_json: bytes
    chat_template: bytes
    tokenizer_config: bytes

    @classmethod
    def from_directory(cls, directory: Path) -> TokenizerFiles:
        """Read them where transformers looks for them. Raises ``OSError`` or ``ValueError``."""
        config_path, template_path = directory / "tokenizer_config.json", directory / "chat_template.jinja"
        config = config_path.read_bytes() if config_path.exists() else b"{}"
        if template_path.exists():
            template = template_path.read_text(encoding="utf-8")
        else:
            template = _template_in(json.loads(config))
        return cls(
            tokenizer_json=(directory / "tokenizer.json").read_bytes(),
            chat_template=template.encode(),
            tokenizer_config=config,
        )

    @classmethod
    async def from_worker(cls, client: WorkerClient) -> TokenizerFiles:
        """Fetch them. Raises ``WorkerCallError``."""
        files = await client.get_tokenizer()
        return cls(
            tokenizer_json=files.get(worker_service_pb2.TOKENIZER_FILE_TOKENIZER_JSON, b""),
            chat_template=files.get(worker_service_pb2.TOKENIZER_FILE_CHAT_TEMPLATE, b""),
            tokenizer_config=files.get(worker_service_pb2.TOKENIZER_FILE_TOKENIZER_CONFIG, b""),
        )

    def check(self, digests: model_pb2.ModelDigests) -> None:
        """Raise ``UnusableWorkerError`` when these are not the files that ``digests`` name."""
        for name, content, expected in (
            ("tokenizer.json", self.tokenizer_json, digests.tokenizer_sha256),
            ("chat template", self.chat_template, digests.chat_template_sha256),
        ):
            actual = hashlib.sha256(content).hexdigest() if content else ""
            if actual != expected:
                raise UnusableWorkerError(f"its {name} has the digest {expected!r}, ours {actual!r}")


def _template_in(config: Any) -> str:
    """The template in a tokenizer_config.json: of several by name the default one, which a worker tells of, too."""
    template = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = next((item.get("template") for item in named if item.get("name") == "default"), None)
    if not isinstance(template, str | None):
        raise ValueError("chat_template is not text")  # noqa: TRY004 - content, not an argument
    return template or ""


class Renderers:
    """Renderers by digest, shared for as long as a model holds them."""

    def __init__(self, directory: Path | None) -> None:
        """With a ``directory`` the files come from there and workers are not asked for theirs."""
        self._directory = directory
        self._renderers: weakref.WeakValueDictionary[tuple[str, str, str], Renderer] = weakref.WeakValueDictionary()
        # Two workers of one checkpoint that connect at the same time must not both build its renderer.
        self._building = asyncio.Lock()

    async def renderer_for(self, client: WorkerClient, digests: model_pb2.ModelDigests) -> Renderer:
        """The renderer of a worker's checkpoint. Raises ``UnusableWorkerError`` or ``WorkerCallError``."""
        key = (digests.checkpoint_sha256, digests.tokenizer_sha256, digests.chat_template_sha256)
        async with self._building:
            renderer = self._renderers.get(key)
            if renderer is None:
                renderer = self._renderers[key] = await self._build(client, digests)
        return renderer

    async def _build(self, client: WorkerClient, digests: model_pb2.ModelDigests) -> Renderer:
        try:
            if self._directory is None:
                files = await TokenizerFiles.from_worker(client)
            else:
                files = await asyncio.to_thread(TokenizerFiles.from_directory, self._directory)
            files.check(digests)
            return await asyncio.to_thread(_from_files, files)
        except (OSError, ValueError) as error:
            raise UnusableWorkerError(f"its tokenizer cannot be used: {error}") from error


def _from_files(files: TokenizerFiles) -> Renderer:
    renderer = Renderer.from_files(files.tokenizer_json, files.chat_template.decode(), files.tokenizer_config)
    # Reading a tokenizer takes twice the memory that it keeps. glibc holds on to the rest, a third of this process,
    # until it is asked to return it; other C libraries have no such call.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return renderer
