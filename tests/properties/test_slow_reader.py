from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.slow_reader import SlowReader

_LOOKS = st.lists(st.tuples(st.sampled_from((0, 1, 9)), st.booleans(), st.floats(0.1, 4)), max_size=30)


@given(_LOOKS)
def test_only_a_reader_that_takes_nothing_for_the_limit_is_given_up(looks: list[tuple[int, bool, float]]) -> None:
    """Taking anything, or having nothing to take, starts the time anew."""
    reader, now, taken, since = SlowReader(5.0), 0.0, 0, None
    for held, takes, seconds in looks:
        now += seconds
        taken += takes
        since = None if not held else now if since is None or takes else since
        is_too_slow = since is not None and now - since >= 5.0
        assert is_too_slow == reader.look(held_bytes=held, taken_bytes=taken, now=now)
