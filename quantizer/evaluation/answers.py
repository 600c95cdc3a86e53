"""Greedy answers: what a model says to a prompt when it always takes its likeliest token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

_BATCH = 20  # prompts answered together
_LONGEST_PERIOD = 16  # tokens; a phrase, or a line of a list
_REPEATS = 4
_SHORTEST_LOOP = 16  # tokens; four commas are no loop


def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[tuple[int, ...]], *, max_tokens: int
) -> list[tuple[int, ...]]:
    """Token ids of each answer, its end-of-sequence token included where it came within ``max_tokens``."""
    ends = _end_tokens(model, tokenizer)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    config = GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, use_cache=True, eos_token_id=ends, pad_token_id=padding
    )
    answers: list[tuple[int, ...]] = []
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        width = max(map(len, batch))
        ids = torch.tensor([(padding,) * (width - len(prompt)) + prompt for prompt in batch], device=model.device)
        mask = torch.tensor([[place >= width - len(prompt) for place in range(width)] for prompt in batch])
        with torch.inference_mode():
            output = model.generate(ids, attention_mask=mask.long().to(model.device), generation_config=config)
        answers += [_until_end(tuple(row), ends) for row in output[:, width:].tolist()]
    return answers


def is_loop(token_ids: Sequence[int]) -> bool:
    """Whether an answer ends in the same few tokens over and over; one that came to its end does not."""
    for period in range(1, _LONGEST_PERIOD + 1):
        tail = token_ids[-max(_REPEATS * period, _SHORTEST_LOOP) :]
        if len(tail) >= max(_REPEATS * period, _SHORTEST_LOOP) and tail[period:] == tail[:-period]:
            return True
    return False


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return ends if isinstance(ends, list) else [0 if ends is None else ends]


def _until_end(token_ids: tuple[int, ...], ends: Sequence[int]) -> tuple[int, ...]:
    for place, token in enumerate(token_ids):
        if token in ends:
            return token_ids[: place + 1]
    return token_ids
