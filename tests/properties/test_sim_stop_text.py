from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.stop_text import StopText

_TEXT = st.text("ab", max_size=30)


@given(pieces=st.lists(_TEXT, max_size=12), stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=4))
def test_shown_text_ends_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    """However the text is cut into pieces, no part of a stop string is shown, and no other text is lost."""
    stop_text = StopText(stops)
    shown, found = "", None
    for piece in pieces:
        new, found = stop_text.push(piece)
        shown += new
        if found is not None:
            break
    else:
        shown += stop_text.flush()

    text = "".join(pieces)
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    first = next((stop for stop in stops if text[: min(ends)].endswith(stop)), None) if ends else None
    assert first == found
    assert (text[: min(ends)].removesuffix(first) if first else text) == shown


@given(text=_TEXT, stop=st.text("ab", min_size=1, max_size=5))
def test_only_a_possible_beginning_is_held_back(text: str, stop: str) -> None:
    """What is held back is the longest end of the text with which the stop string begins."""
    shown, found = StopText([stop]).push(text)

    if found is None:
        held = text[len(shown) :]
        assert stop.startswith(held)
        assert not any(stop.startswith(text[at:]) for at in range(len(shown)))
