from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.token_pattern import longest_of

_TOKENS = st.lists(st.text("<|ab>\n.", min_size=1, max_size=5), max_size=12)


@given(_TOKENS, st.text("<|ab>\n.", max_size=40))
def test_it_matches_as_all_tokens_one_behind_the_other_the_longest_first(tokens: list[str], text: str) -> None:
    """At the same places, and as much."""
    one_by_one = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)"
    expected = [found.span() for found in re.finditer(one_by_one, text)]
    assert expected == [found.span() for found in re.finditer(longest_of(tokens), text)]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([f"<unused{number}>" for number in range(6242)], "<unused"),
        ([f"<SPECIAL_{number}>" for number in range(1000)], "<SPECIAL_"),
        (["\n" * length for length in range(1, 32)] + [f"<unused{number}>" for number in range(6242)], "<td>"),
    ],
)
def test_a_text_full_of_beginnings_takes_no_longer_for_thousands_of_tokens(tokens: list[str], text: str) -> None:
    """One behind the other they took 1 to 10 s for a prompt of the largest size, in which no other thread ran."""
    prompt = text * (2**20 // len(text))
    pattern = re.compile(longest_of(tokens))
    before = time.thread_time()
    assert pattern.search(prompt) is None
    assert time.thread_time() - before < 0.5
