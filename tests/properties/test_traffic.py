from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.traffic import Traffic

_PROMPTS = st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 9), st.booleans()), max_size=120)


def _nothing() -> None:
    """A prompt that the reservoir cannot hold."""


@given(prompts=_PROMPTS, size=st.integers(0, 8), window=st.integers(1, 20), seed=st.integers(0, 1000))
def test_memory_is_bounded_and_nothing_is_made_up(
    prompts: list[tuple[int, int, bool]], size: int, window: int, seed: int
) -> None:
    """Counts stay under two windows, the reservoir within its size, and each document in it was offered once."""
    traffic = Traffic(reservoir_size=size, rng=random.Random(seed), window_requests=window)
    offered = 0
    for number, (prompt_tokens, turns, is_text) in enumerate(prompts):
        document: Callable[[], dict[str, int] | None] = partial(dict, text=number) if is_text else _nothing
        traffic.note(prompt_tokens=prompt_tokens, turns=turns, document=document)
        offered += is_text
        assert 2 * window > traffic.histogram.total
        kept = [document["text"] for document in traffic.reservoir]
        assert min(size, offered) == len(kept)
        assert len(set(kept)) == len(kept)
        assert all(prompts[number][2] for number in kept)
        assert all(min(row) >= 0 for row in traffic.histogram.counts)
