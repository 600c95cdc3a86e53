from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.regular_expression import _check_by_re2, _check_cost, _Translation

PIECES = st.sampled_from(
    [
        *("a", ".", r"[^\n]", "[{9999}]", r"[\]{9}]", r"\w", r"\{", r"\p{L}", r"\PL", "(", ")", "|", "(?i)"),
        *("{1,1000}", "{900}", "{2,}", "{9999}", "*", "]", "[", "^", "\\"),
    ]
)


def accepted(pattern: str) -> bool:
    """What is decided without a look at the cost."""
    try:
        _check_by_re2(pattern)
        _check_by_re2("".join(_Translation(pattern, []).pieces()))
    except ValueError:
        return False
    return True


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_nothing_is_refused_for_its_cost_that_would_be_accepted(pattern: str) -> None:
    """The bound is there to say no sooner, and not to say it more often."""
    try:
        _check_cost(pattern)
    except ValueError:
        assert not accepted(pattern)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?i)" + r"\PL" * 128, "unsupported escape at character 4"),
        (r"[a\pL]", "unsupported escape at character 2"),
        (r"[^\n]{0,1000}" * 315, "more than 20000 instructions"),
        ("|".join([r"\W{1,1000}"] * 370), "more than 20000 instructions"),
    ],
)
def test_what_costs_much_is_refused_before_it_is_compiled(pattern: str, reason: str) -> None:
    """These held the GIL for 40 to 200 ms."""
    with pytest.raises(ValueError, match=reason):
        _check_cost(pattern)


@pytest.mark.parametrize("pattern", [".{1,1000}", "[{9999}{9999}{9999}]", r"\{9999}\{9999}\{9999}", r"\\p{3}", "a{2,}"])
def test_what_only_looks_like_it_is_left_alone(pattern: str) -> None:
    """Classes and escapes hold braces that repeat nothing."""
    _check_cost(pattern)
