from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.demand import Fit
from gateway.policy.kept_room import kept_on_each

_FREE = st.lists(st.integers(0, 2_000), min_size=1, max_size=6)
_SPARE, _MEAN = st.integers(0, 3_000), st.integers(0, 900)


def fit(spare_tokens: int, mean_tokens: int) -> Fit:
    """Of a job for whose size nobody asks here."""
    return Fit(expected_tokens=1, spare_tokens=spare_tokens, mean_tokens=mean_tokens)


@given(free=st.integers(0, 2_000), spare=_SPARE, mean=_MEAN)
def test_a_worker_alone_keeps_all_of_it(free: int, spare: int, mean: int) -> None:
    """To the token, whatever the others hold."""
    assert [spare] == kept_on_each([free], fit(spare, mean))


@given(free=_FREE, spare=_SPARE, mean=_MEAN)
def test_what_is_kept_here_and_free_elsewhere_is_enough(free: list[int], spare: int, mean: int) -> None:
    """And no more is kept than that; on no worker more than all of it."""
    for number, kept in enumerate(kept_on_each(free, fit(spare, mean))):
        elsewhere = sum(max(0, tokens - mean) for place, tokens in enumerate(free) if place != number)
        assert max(0, spare - elsewhere) == kept


@given(free=_FREE, more=st.integers(0, 2_000), spare=_SPARE, mean=_MEAN)
def test_room_on_one_worker_lets_more_onto_the_others(free: list[int], more: int, spare: int, mean: int) -> None:
    """Never less, and nothing changes for those that go to that worker."""
    before, after = kept_on_each(free, fit(spare, mean)), kept_on_each([free[0] + more, *free[1:]], fit(spare, mean))
    assert before[0] == after[0]
    assert all(kept <= kept_before for kept, kept_before in zip(after[1:], before[1:], strict=True))
