"""Names for the beginnings of prompts, block by block: equal names mean equal content from the first token on. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def content_names(tokens: Sequence[int], block_size: int, known: Sequence[int] = ()) -> list[int]:
    """Names of the full blocks of ``tokens``, each made of the block's tokens and all before; ``known`` come first.

    They hold within one process. A collision costs memory or time, never a wrong token: nothing is read by these names.
    """
    names = list(known)
    for start in range(len(names) * block_size, len(tokens) - block_size + 1, block_size):
        names.append(hash((names[-1] if names else 0, *tokens[start : start + block_size])))
    return names


def shareable_names(prompt: Sequence[int], block_size: int) -> list[int]:
    """Names of the blocks of ``prompt`` that may come from a prefix cache: at least one token is always computed."""
    return content_names(prompt[: len(prompt) - 1], block_size)
