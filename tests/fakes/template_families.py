"""Eight families of chat models, each a template and a small real tokenizer of the family's kind.

The templates in tests/data/templates do what the families' own do, in other words. The tokenizers are trained on a page
of text when a test asks for them (milliseconds), with the family's normalizer, pre-tokenizer and control tokens.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEMPLATES = Path(__file__).parent.parent / "data" / "templates"

_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of chat models. ``markup`` is text that its templates or tokenizers look at, and no control token."""

    name: str
    build: Callable[[], Tokenizer]
    control_tokens: Sequence[AddedToken | str]
    plain_tokens: Sequence[str] = ()
    named: dict[str, str] = field(default_factory=dict)
    knows_system: bool = True
    knows_tools: bool = False
    knows_tool_calls: bool = False
    needs_turns: bool = False
    markup: Sequence[str] = ()

    @property
    def template(self) -> str:
        return (TEMPLATES / f"{self.name}.jinja").read_text(encoding="utf-8")

    @property
    def structural_tokens(self) -> list[str]:
        """The ordinary tokens that the template writes."""
        return [token for token in self.plain_tokens if token.strip() and token in self.template]

    @property
    def config(self) -> bytes:
        return json.dumps(self.named).encode()


def _trained(tokenizer: Tokenizer) -> Tokenizer:
    """Merges learned from the page of text; every byte is in the alphabet where the pre-tokenizer writes bytes."""
    is_byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if is_byte_level else []
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((TEMPLATES / "corpus.txt").read_text(encoding="utf-8").splitlines(), trainer)
    return tokenizer


def _byte_level(pre_tokenizer: pre_tokenizers.PreTokenizer, *, ignore_merges: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer)


def _split_then_bytes(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _sentencepiece(
    normalizer: normalizers.Normalizer | None, pre_tokenizer: pre_tokenizers.PreTokenizer | None
) -> Tokenizer:
    """BPE as SentencePiece has it: spaces are written as letters, and unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    spec = json.loads(_trained(tokenizer).to_str())
    pieces = ["<unk>", "<s>", "</s>", *_BYTE_TOKENS, *spec["model"]["vocab"]]
    spec["model"] |= {
        "vocab": {piece: place for place, piece in enumerate(pieces)},
        "unk_token": "<unk>",
        "byte_fallback": True,
        "fuse_unk": True,
    }
    return Tokenizer.from_str(json.dumps(spec))


def _qwen() -> Tokenizer:
    tokenizer = _byte_level(_split_then_bytes(_QWEN_SPLIT))
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _phi() -> Tokenizer:
    return _sentencepiece(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None)


_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="chatml",
            build=lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
            control_tokens=_IM,
            named={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        ),
        Family(
            name="smollm2",
            build=lambda: _byte_level(
                pre_tokenizers.Sequence(
                    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
                )
            ),
            control_tokens=[*_IM, "<repo_name>", "<file_sep>", "<jupyter_start>"],
            named={"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
        ),
        Family(
            name="llama3",
            build=lambda: _byte_level(_split_then_bytes(_LLAMA3_SPLIT), ignore_merges=True),
            control_tokens=[
                *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                *("<|python_tag|>", "<|eom_id|>", "<|reserved_special_token_0|>"),
            ],
            named={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
            knows_tools=True,
            knows_tool_calls=True,
        ),
        Family(
            name="mistral",
            build=lambda: _sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
            control_tokens=[
                *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
                *("[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
            ],
            named={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
            knows_tools=True,
            knows_tool_calls=True,
            needs_turns=True,
            markup=["[", "]", "[INST", "INST]", "<<SYS>>"],
        ),
        Family(
            name="gemma",
            build=lambda: _sentencepiece(
                normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", behavior="merged_with_previous")
            ),
            control_tokens=["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"],
            plain_tokens=["\n\n", "▁▁", "<table>"],
            named={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
            knows_system=False,
            needs_turns=True,
            markup=["<table>", "\n\n", "start_of_turn"],
        ),
        Family(
            name="qwen",
            build=_qwen,
            control_tokens=_IM,
            plain_tokens=["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"],
            named={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
            knows_tools=True,
            knows_tool_calls=True,
            markup=["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"],
        ),
        Family(
            name="deepseek",
            build=lambda: _byte_level(_split_then_bytes(_LLAMA3_SPLIT)),
            control_tokens=[
                *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜tool▁calls▁begin｜>"),
                *("<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
                *("<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>"),
                "<｜tool▁output▁end｜>",
            ],
            plain_tokens=["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"],
            named={"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"},
            knows_tool_calls=True,
            markup=["<think>", "</think>", "｜", "▁"],
        ),
        Family(
            name="phi",
            build=_phi,
            # The family's tokenizers let some of these take the white space behind them.
            control_tokens=[
                *("<unk>", "<s>", "</s>"),
                *(AddedToken(token, rstrip=True) for token in ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")),
                AddedToken("<|endoftext|>", rstrip=False),
            ],
            named={"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"},
            markup=["<|", "|>", "user", "end"],
        ),
    )
}


@functools.cache
def family_tokenizer(name: str) -> Tokenizer:
    """The family's tokenizer, with its added tokens."""
    family = FAMILIES[name]
    tokenizer = family.build()
    tokenizer.add_special_tokens(list(family.control_tokens))
    tokenizer.add_tokens(list(family.plain_tokens))
    return tokenizer
