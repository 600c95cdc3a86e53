from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from worker.bounded_text import BoundedStream
from worker.token_text import TokenText

_TOKENIZER = Tokenizer.from_file("worker/sim_model/tokenizer.json")
_PROMPT = _TOKENIZER.encode("What is it?", add_special_tokens=False).ids
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Parts of characters, and of none; a token without a text is the last one.
_BYTES = [token_id for name, token_id in _TOKENIZER.get_vocab().items() if len(name) == 1]
_BROKEN = next(token_id for token_id in _BYTES if _TOKENIZER.decode([token_id]) == _REPLACEMENT)
_WITHOUT_TEXT = next(
    token_id for token_id in _TOKENIZER.get_added_tokens_decoder() if _TOKENIZER.decode([token_id]) == ""
)
_WHOLE = st.text(max_size=20).map(lambda text: list(_TOKENIZER.encode(text, add_special_tokens=False).ids))
_PARTS = st.lists(st.sampled_from([*_BYTES, _WITHOUT_TEXT]), max_size=50)
_RUNS = st.tuples(st.sampled_from([_BROKEN, _WITHOUT_TEXT]), st.integers(0, 150)).map(lambda run: [run[0]] * run[1])


class _Counting:
    """Counts the tokens that it decodes."""

    def __init__(self) -> None:
        self.tokens = 0

    def decode(self, token_ids: Sequence[int]) -> str:
        self.tokens += len(token_ids)
        return str(_TOKENIZER.decode(token_ids))


class _CountingStream:
    """Counts its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, tokenizer: object, token_id: int) -> None:
        del tokenizer, token_id
        self.steps += 1


def _stream() -> DecodeStream:
    return DecodeStream(ids=_PROMPT, skip_special_tokens=True)


@given(st.lists(st.one_of(_WHOLE, _PARTS, _RUNS), max_size=6).map(lambda parts: list(chain.from_iterable(parts))))
def test_one_by_one_tokens_have_the_text_that_they_have_together(token_ids: list[int]) -> None:
    """But for the end, which may yet become a character."""
    subject = TokenText(_TOKENIZER, _PROMPT)
    told = "".join(map(subject.decode, token_ids))
    whole = _TOKENIZER.decode(token_ids)
    assert whole.startswith(told)
    assert whole[len(told) :].strip(_REPLACEMENT) == ""


@given(st.lists(st.one_of(_WHOLE, _PARTS, _RUNS), max_size=6).map(lambda parts: list(chain.from_iterable(parts))))
def test_a_bounded_stream_tells_what_an_unbounded_one_does(token_ids: list[int]) -> None:
    """Some of it earlier."""
    subject, unbounded = (BoundedStream(_stream()), _stream())
    told = "".join(subject.step(_TOKENIZER, token_id) or "" for token_id in token_ids)
    expected = "".join(unbounded.step(_TOKENIZER, token_id) or "" for token_id in token_ids)
    assert told.startswith(expected)
    assert told[len(expected) :].strip(_REPLACEMENT) == ""


@pytest.mark.parametrize("token_id", [_BROKEN, _WITHOUT_TEXT])
def test_tokens_that_are_no_characters_are_not_decoded_again_for_ever(token_id: int) -> None:
    """Somebody can ask for thousands of them, one after the other, and others wait meanwhile."""
    counting = _Counting()
    subject = TokenText(counting, _PROMPT)  # type: ignore[arg-type] # as far as it is asked
    for _ in range(2_000):
        subject.decode(token_id)
    assert counting.tokens < 2_000 * 100


@pytest.mark.parametrize("token_id", [_BROKEN, _WITHOUT_TEXT])
def test_a_bounded_stream_leaves_the_unbounded_one_in_time(token_id: int) -> None:
    """Before its cost is felt."""
    stream, counting = _CountingStream(), _Counting()
    subject = BoundedStream(stream)  # type: ignore[arg-type] # as far as it is asked
    for _ in range(2_000):
        subject.step(counting, token_id)  # type: ignore[arg-type] # as far as it is asked
    assert stream.steps < 100
    assert counting.tokens < 2_000 * 100
