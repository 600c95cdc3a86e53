"""Dense models of a few layers with random weights, on disk as a real one would be, for the quantizer to work on.

Channels are made to differ, as they do in trained models: a few have large activations, and each has weights of its own
size. AWQ exists because of that; without it, neither its advantage nor its defects could be seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
_SPECIAL = ("<|end|>", "<|start|>")
_VOCABULARY = 320
_LARGE_CHANNELS = 6

ARCHITECTURES = ("gemma2", "llama", "mistral", "qwen2", "qwen3")


def write_tiny_model(directory: Path, architecture: str = "llama", **overrides: Any) -> Path:
    """Write config, weights, tokenizer and chat template; ``overrides`` go into the config."""
    settings: dict[str, Any] = {
        "vocab_size": _VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
        "tie_word_embeddings": True,
        "eos_token_id": 256,
        "bos_token_id": None,
        "pad_token_id": 256,
    }
    config = AutoConfig.for_model(architecture, **(settings | overrides))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
                if "proj" in name:
                    sizes = torch.empty(parameter.shape[1]).log_normal_(std=0.7, generator=generator)
                    parameter.mul_(sizes / sizes.square().mean().sqrt())
            elif name.endswith("bias"):
                parameter.normal_(generator=generator)
            elif "layernorm" in name:
                large = torch.randperm(len(parameter), generator=generator)[:_LARGE_CHANNELS]
                parameter[large] = 8.0
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def write_tokenizer(directory: Path, *, template: str = _TEMPLATE) -> None:
    """A tokenizer of single bytes with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_SPECIAL[0], pad_token=_SPECIAL[0])
    fast.chat_template = template
    fast.save_pretrained(directory)


def write_tiny_held_out(path: Path) -> Path:
    """A few chats and some text, enough to tell good from bad, in a second."""
    chats = [{"messages": [{"role": "user", "content": f"What is {n} and {n}?"}]} for n in range(6)]
    text = {"text": "The quick brown fox jumps over the lazy dog, and then it does so again. " * 12}
    path.write_text("\n".join(map(json.dumps, [*chats, text])), encoding="utf-8")
    return path


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices as small as these are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
