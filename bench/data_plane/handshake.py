"""What the workers without an engine tell a gateway: a model with the tokenizer, template and canaries of the sim."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tokenizers import Tokenizer

from bench.data_plane.toolchain import ROOT
from tidegate.inference.v1 import model_pb2
from tidegate.worker.v1 import worker_service_pb2
from worker.canaries import read_canaries

MODEL_DIR = ROOT / "worker" / "sim_model"
_TEMPLATE = "chat_template.jinja"
# Nothing is to be refused for its length: streams of timed scenarios ask for a million tokens, ten thousand at a time.
_CONTEXT_TOKENS = 100_000_000
_POOL_TOKENS = 160_000_000_000
_BLOCK_SIZE = 16

_SENTENCE = "The tide comes in twice a day, and the gate has to be open before it turns. "


def model_response() -> worker_service_pb2.GetModelResponse:
    """The answer to ``GetModel``."""
    tokenizer = (MODEL_DIR / "tokenizer.json").read_bytes()
    return worker_service_pb2.GetModelResponse(
        model=model_pb2.Model(
            name="bench",
            limits=model_pb2.ModelLimits(
                context_length=_CONTEXT_TOKENS,
                max_output_tokens=_CONTEXT_TOKENS // 2,
                default_max_output_tokens=1024,
                vocabulary_size=Tokenizer.from_buffer(tokenizer).get_vocab_size(),
                kv_pool_token_count=_POOL_TOKENS,
            ),
            digests=model_pb2.ModelDigests(
                checkpoint_sha256="b" * 64,
                tokenizer_sha256=hashlib.sha256(tokenizer).hexdigest(),
                chat_template_sha256=hashlib.sha256((MODEL_DIR / _TEMPLATE).read_bytes()).hexdigest(),
            ),
            capabilities=model_pb2.ModelCapabilities(chat=True, seed=True),
        ),
        canaries=read_canaries(MODEL_DIR / "canaries.json"),
        block_size=_BLOCK_SIZE,
        engine="bench",
    )


def prompt(tokens: int) -> str:
    """A user's message of so many tokens."""
    text = _SENTENCE * tokens
    _, end = _tokenizer().encode(text).offsets[tokens - 1]
    return text[:end]


def count(text: str) -> int:
    """Tokens of ``text``."""
    return len(_tokenizer().encode(text).ids)


def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def write(folder: Path, *, prompt_tokens: int) -> tuple[Path, Path]:
    """Write the files that the C++ programs read: the model, and the prompt."""
    model_file, prompt_file = folder / "model.binpb", folder / "prompt.txt"
    model_file.write_bytes(model_response().SerializeToString())
    prompt_file.write_text(prompt(prompt_tokens), encoding="utf-8")
    return model_file, prompt_file
