"""Builds the files of this directory: ``python -m worker.sim_model.build``. Needs transformers, for the canaries."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from worker.canaries import write_canaries
from worker.canary_reference import render_canaries

_DIRECTORY = Path(__file__).parent
_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_VOCABULARY_SIZE = 768

# What the tokenizer knows as words, and so what the sim's answers are made of.
_TEXT = """
The gate opens when the tide comes in and closes when it goes out again. A request arrives with a prompt; the ledger
counts the blocks that are free, and the blocks that are promised, before the first token is made. What does not fit is
refused at once, with a number that says when to come back. Every answer is a stream: one token after the other, each
with its place in memory, until the last one, and then the memory is free for somebody else. A worker that is busy is
not dead, and a worker that is dead is not busy for long. Measure first, then change one thing, then measure again.
"""

# ChatML, with tools in the manner of Hermes.
_CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}
{%- endif %}
{{- 'You may call these tools:' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return tokenizer


def _write(name: str, content: dict[str, object]) -> None:
    (_DIRECTORY / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def build() -> None:
    """Write every file anew."""
    end_of_text, _, end_of_turn = _SPECIAL_TOKENS
    tokenizer = _tokenizer()
    tokenizer.save(str(_DIRECTORY / "tokenizer.json"))
    _write("config.json", {"architectures": ["Sim"], "vocab_size": tokenizer.get_vocab_size()})
    _write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": end_of_turn,
            "pad_token": end_of_text,
            "clean_up_tokenization_spaces": False,
        },
    )
    (_DIRECTORY / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    write_canaries(_DIRECTORY / "canaries.json", render_canaries(_DIRECTORY))


if __name__ == "__main__":
    build()
