from __future__ import annotations

import pytest

from gateway.policy.prefix_index import PrefixIndex
from gateway.prefix import prefix_names, prefix_stride
from tidegate.rpc.token_ids import packed


@pytest.mark.parametrize(("block_size", "stride"), [(1, 64), (16, 64), (48, 96), (64, 64), (128, 128)])
def test_a_name_stands_for_whole_blocks(block_size: int, stride: int) -> None:
    """Engines share nothing smaller."""
    assert stride == prefix_stride(block_size)


def test_prompts_share_names_as_far_as_they_share_tokens() -> None:
    """A difference in one token makes all names from there on differ."""
    prompt = tuple(range(400))
    other = (*prompt[:200], 999, *prompt[201:])
    names = (prefix_names(packed(ids), 64) for ids in (prompt, other))
    shared = [name == other_name for name, other_name in zip(*names, strict=True)]
    assert [True, True, True, False, False, False] == shared


def test_the_rest_of_a_prompt_that_fills_no_step_has_no_name() -> None:
    """And a short prompt has none at all."""
    assert [0, 1, 1, 2] == [len(prefix_names(packed(range(tokens)), 64)) for tokens in (63, 64, 127, 128)]


def test_the_names_of_a_very_long_prompt_are_bounded() -> None:
    """The cost of a request stays bounded with them."""
    assert 512 == len(prefix_names(packed(range(100_000)), 64))


def test_an_index_holds_what_was_sent() -> None:
    """As far as prompts are alike."""
    index = PrefixIndex(max_entries=10)
    index.send((1, 2, 3))
    assert [3, 2, 0] == [index.held(prefix) for prefix in ((1, 2, 3, 4), (1, 2, 9), (7,))]


def test_an_index_forgets_the_ends_of_the_oldest_prompts_first() -> None:
    """As an engine does: beginnings are shared by more prompts."""
    index = PrefixIndex(max_entries=4)
    index.send((1, 2, 3))
    index.send((11, 12))
    assert [2, 2] == [index.held((1, 2, 3)), index.held((11, 12))]


def test_a_worker_that_does_not_keep_what_it_was_sent_loses_trust() -> None:
    """Without a prefix cache there is no reason to go there; one that keeps its promises is believed again."""
    index = PrefixIndex(max_entries=4)
    for _ in range(30):
        index.confirm(promised_tokens=100, cached_tokens=0)
    assert index.trust < 0.05
    for _ in range(30):
        index.confirm(promised_tokens=100, cached_tokens=100)
    assert index.trust > 0.95


def test_where_nothing_was_promised_nothing_is_learnt() -> None:
    """A prompt seen for the first time says nothing of the cache."""
    index = PrefixIndex(max_entries=4)
    index.confirm(promised_tokens=0, cached_tokens=0)
    assert 1.0 == index.trust


def test_an_index_of_a_negative_size_is_refused() -> None:
    """It would forget more than it has."""
    with pytest.raises(ValueError, match="at least 0"):
        PrefixIndex(max_entries=-1)
