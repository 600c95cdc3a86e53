"""Encoding from kept pieces against the tokenizer itself, on eight families of models."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from gateway.segment_cache import Encoded, SegmentCache, dividers
from tests.fakes.template_families import FAMILIES, family_tokenizer
from tidegate.rpc.token_ids import packed


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """As the tokenizer does it."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def special_tokens(tokenizer: Tokenizer) -> set[int]:
    """Their ids."""
    return {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}


@functools.cache
def cache_of(family: str) -> SegmentCache | None:
    """Kept over all examples, so that most pieces are found in it. None where pieces cannot be told apart."""
    tokenizer = family_tokenizer(family)
    special = set(special_tokens(tokenizer))
    divided_by = dividers(tokenizer, lambda text: encode(tokenizer, text))

    def encoded(ids: list[int]) -> Encoded:
        return Encoded(ids=packed(ids), specials=packed([token_id for token_id in ids if token_id in special]))

    given = {token: encoded([token_id]) for token, token_id in divided_by.items()}
    return SegmentCache(lambda text: encoded(encode(tokenizer, text)), given) if given else None


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_laid_end_to_end_are_the_whole(family: str, data: st.DataObject) -> None:
    """Token for token, with any text between any added tokens."""
    cache, tokenizer = cache_of(family), family_tokenizer(family)
    added = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
    words = st.sampled_from(["", " ", "a", " the", "\n", "\n\n", "  ", "é", "你好", "12", "'s", "<|", "|>", "\u0338"])
    text = "".join(data.draw(st.lists(words | st.sampled_from(added) | st.text(max_size=6), max_size=12)))
    if cache is not None:
        encoded = cache.encode(text)
        ids, special = encode(tokenizer, text), special_tokens(tokenizer)
        assert packed(ids) == encoded.ids
        assert packed([token_id for token_id in ids if token_id in special]) == encoded.specials


def test_the_families_of_today_can_be_encoded_in_pieces() -> None:
    """Others are encoded whole, as before."""
    assert {"chatml", "llama3", "qwen", "smollm2"} <= {family for family in FAMILIES if cache_of(family) is not None}


def test_tokens_that_take_their_neighbours_blanks_divide_nothing() -> None:
    """Neither do those of a tokenizer that treats a text's beginning in its own way."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(["<t>"])
    assert {} == dividers(tokenizer, lambda text: encode(tokenizer, text))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<s>", lstrip=True)])
    assert {} == dividers(tokenizer, lambda text: encode(tokenizer, text))


def test_what_is_kept_is_bounded() -> None:
    """The least recently used go first, and what is larger than an eighth of all is not kept."""
    cache = SegmentCache(lambda text: Encoded(ids=bytes(4 * len(text))), {"<s>": Encoded(ids=bytes(4))})
    first, large = "0" * 50_000, "x" * 10**6
    for number in range(1, 100):
        cache.encode(first)
        cache.encode(str(number) * 50_000)
    cache.encode(large)
    assert cache._kept_bytes <= 8 * 2**20
    assert (True, False) == (first in cache._kept, large in cache._kept)
