"""Greedy answers: what counts as a loop."""

from __future__ import annotations

import pytest

from quantizer.evaluation.answers import is_loop


@pytest.mark.parametrize("period", [1, 2, 5, 16])
def test_the_same_words_over_and_over_are_a_loop(period: int) -> None:
    """Whatever came before, and however many tokens come back."""
    assert is_loop([*range(100, 110), *(list(range(period)) * 16)[: 4 * max(period, 4)]])


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [7],
        list(range(64)),
        [1, 2, 3, 4] * 3,
        [*[1, 2] * 10, 3],
        [*range(40), *[5] * 4],
    ],
    ids=["nothing", "a word", "no word twice", "three lines", "one that ended", "four commas"],
)
def test_an_answer_that_comes_to_an_end_is_none(answer: list[int]) -> None:
    """A list repeats itself for a while, and an ellipsis is a few tokens."""
    assert not is_loop(answer)
