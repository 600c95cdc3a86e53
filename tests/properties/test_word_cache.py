"""Encoding from kept words against the tokenizer itself, on the families of models that are encoded so."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from gateway.word_cache import WordCache, cuts_before_words
from tests.fakes.template_families import FAMILIES, family_tokenizer
from tidegate.rpc.token_ids import packed

_BYTE_LEVEL = ("chatml", "deepseek", "llama3", "qwen", "smollm2")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_WORDS = st.sampled_from(
    [
        *(
            "",
            "the",
            "a",
            "don't",
            "He'll",
            "'s",
            "12",
            "1234",
            "3.14",
            "x1y",
            "foo/bar",
            "...",
            "(",
            ")",
            ",",
            "—",
            "\n",
        ),
        *("\n\n", "\t", "\u00a0", "\u3000", "\u200b", "\u1680", "\x1c", "\r\n", "ÉTÉ", "été", "e\u0301", "\u0338"),
        *("你好", "हिन्दी", "👩‍👩‍👧", "²", "Ⅷ", "_", "$5", "\ufeff", "ﬁ", "ǅ", "a\nb", "b\n", "\nc"),
    ]
)
_TEXTS = st.lists(_WORDS | st.text(max_size=5), max_size=12).flatmap(
    lambda words: st.sampled_from([" ", " ", "", "  "]).map(lambda between: between.join(words))
)


def _bytes_alone() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def o200k() -> Tokenizer:
    """The bytes of a trained tokenizer, behind the pre-tokenizer of another family."""
    tokenizer = Tokenizer.from_str(family_tokenizer("llama3").to_str())
    split = pre_tokenizers.Split(Regex(_O200K), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


@functools.cache
def tokenizer_of(family: str) -> Tokenizer:
    """Without its added tokens, which never stand in what is encoded by words."""
    spec = (o200k() if family == "o200k" else family_tokenizer(family)).to_str()
    tokenizer = Tokenizer.from_str(spec)
    bare = Tokenizer(tokenizer.model)
    bare.pre_tokenizer = tokenizer.pre_tokenizer
    if tokenizer.normalizer is not None:
        bare.normalizer = tokenizer.normalizer
    return bare


@functools.cache
def cache_of(family: str) -> WordCache:
    """Kept over all examples, so that most words are found in it."""
    tokenizer = tokenizer_of(family)
    return WordCache(
        lambda texts: [tokenizer.encode(text, add_special_tokens=False).ids for text in texts], frozenset()
    )


@pytest.mark.parametrize("family", [*_BYTE_LEVEL, "o200k"])
@settings(max_examples=300, deadline=None)
@given(text=_TEXTS)
def test_words_laid_end_to_end_are_the_text(family: str, text: str) -> None:
    """Token for token, at the first sight of a word and later."""
    for _ in range(2):
        ids = cache_of(family).encode(text)
        assert ids in (None, packed(tokenizer_of(family).encode(text, add_special_tokens=False).ids))


def test_the_byte_level_families_are_encoded_by_words() -> None:
    """SentencePiece's are not: its merges may go over spaces."""
    known = {family for family in FAMILIES if cuts_before_words(family_tokenizer(family))}
    assert set(_BYTE_LEVEL) == known
    assert cuts_before_words(o200k())


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.NFKC()),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda tokenizer: setattr(
            tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        ),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.Split(Regex(r"\S+ \S+"), "isolated")),
        lambda tokenizer: setattr(tokenizer, "model", models.BPE(dropout=0.1)),
        lambda tokenizer: setattr(tokenizer, "model", models.WordLevel()),
    ],
)
def test_what_is_not_known_is_not_encoded_by_words(change: Callable[[Tokenizer], None]) -> None:
    """Another normalizer, pre-tokenizer, expression or model."""
    tokenizer = Tokenizer.from_str(family_tokenizer("chatml").to_str())
    change(tokenizer)
    assert not cuts_before_words(tokenizer)


def test_ordinary_text_is_encoded_by_words() -> None:
    """The second time, the tokenizer is not asked."""
    encoded: list[str] = []

    def encode(texts: Sequence[str]) -> list[list[int]]:
        encoded.extend(texts)
        return [[len(text)] for text in texts]

    words = WordCache(encode, frozenset())
    assert packed([9, 4, 6]) == words.encode("user\nabcd abc defgh")
    assert packed([9, 6, 4]) == words.encode("user\nabcd defgh abc")
    assert ["user\nabcd", " abc", " defgh"] == encoded


def test_words_of_special_tokens_are_not_kept() -> None:
    """A vocabulary can make one of text that is none; the caller finds it in the whole."""
    assert WordCache(lambda texts: [[7] for _ in texts], {7}).encode("a b") is None


def test_the_number_of_words_is_bounded() -> None:
    """Nobody can fill memory with words that come once."""
    words = WordCache(lambda texts: [[1] for _ in texts], frozenset())
    for number in range(30_000):
        words.encode(f"a {number}")
    assert len(words._further) <= 20_001
