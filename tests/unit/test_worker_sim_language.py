from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

import worker
from worker.sim_language import SimLanguage

_TOKENIZER = (Path(worker.__file__).parent / "sim_model" / "tokenizer.json").read_bytes()


def test_tokens_are_a_function_of_seed_and_position_alone() -> None:
    """Two engines agree, seeds differ, and the values never change between releases: clients may have stored them."""
    one = SimLanguage(_TOKENIZER, seed=7, mean_output_tokens=None)
    other = SimLanguage(_TOKENIZER, seed=8, mean_output_tokens=None)

    assert [one.token(None, position) for position in range(50)] == [other.token(7, position) for position in range(50)]
    assert [one.token(1, position) for position in range(50)] != [one.token(2, position) for position in range(50)]
    assert [" w", " th"] == [one.text(one.token(0, position)) for position in (0, 1)]


def test_text_of_a_sequence_is_the_texts_of_its_tokens() -> None:
    """What is streamed token by token is what the tokenizer makes of all of them."""
    language = SimLanguage(_TOKENIZER, seed=0, mean_output_tokens=None)
    tokens = [language.token(None, position) for position in range(500)]

    assert Tokenizer.from_str(_TOKENIZER.decode()).decode(tokens) == "".join(map(language.text, tokens))


def test_texts_end_after_the_mean_on_average() -> None:
    """One position in mean_output_tokens ends a text; none does without it."""
    language = SimLanguage(_TOKENIZER, seed=0, mean_output_tokens=50)
    endless = SimLanguage(_TOKENIZER, seed=0, mean_output_tokens=None)

    assert 1_000 == pytest.approx(sum(language.ends(3, position) for position in range(50_000)), rel=0.1)
    assert not any(endless.ends(3, position) for position in range(1_000))


def test_tokenizer_without_words_is_refused() -> None:
    """A tokenizer whose tokens have no text of their own cannot be spoken."""
    with pytest.raises(ValueError, match="byte-level"):
        SimLanguage(Tokenizer(models.BPE({"a": 0}, [])).to_str().encode(), seed=0, mean_output_tokens=None)


def test_what_is_no_tokenizer_is_refused_by_its_name() -> None:
    """Its library raises a bare Exception, which would end the worker with a traceback."""
    with pytest.raises(ValueError, match=r"tokenizer\.json: "):
        SimLanguage(b"nonsense", seed=0, mean_output_tokens=None)
