from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from worker.engine import Continued, Sampling
from worker.output_text import OutputText

# Few characters, so that stop strings are found; one of two bytes and one of four.
_PIECES = ("", "a", "b", "ab", "ba", "é", "\N{WATER WAVE}a")
_TOKENS = st.lists(st.integers(0, len(_PIECES) - 1), min_size=1, max_size=30)
_STOPS = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3).map(tuple)

_decode: Callable[[int], str] = _PIECES.__getitem__


def _told(text: OutputText, token_ids: list[int]) -> str:
    told = ""
    for token_id in token_ids:
        told += text.push(token_id)
        if text.is_over:
            break
    return told


@given(_TOKENS, _STOPS, st.integers(0, 5), st.data())
def test_a_continued_text_goes_on_where_the_clients_ends(
    token_ids: list[int], stops: tuple[str, ...], min_tokens: int, data: st.DataObject
) -> None:
    """Wherever an output is cut, the two parts together are the whole, with the same stop string and tokens."""
    sampling = Sampling(max_output_tokens=len(token_ids), min_output_tokens=min_tokens, stop_strings=stops)
    whole = OutputText(_decode, sampling)
    expected = _told(whole, token_ids)

    cut = data.draw(st.integers(0, whole.tokens - (whole.stop is not None)))
    first = OutputText(_decode, sampling)
    delivered = _told(first, token_ids[:cut])
    # The other worker may have been more careful, and held back more.
    delivered = delivered[: data.draw(st.integers(0, len(delivered)))]
    continued = Continued(token_ids=tuple(token_ids[:cut]), text_bytes=len(delivered.encode()))
    second = OutputText(_decode, sampling, continued)
    rest = "" if second.is_over else _told(second, token_ids[cut:])

    assert expected + whole.flush() == delivered + rest + second.flush()
    assert (whole.stop, whole.tokens, whole.is_over) == (second.stop, second.tokens, second.is_over)
    assert delivered == second.continued_text
