from __future__ import annotations

import pytest

from gateway.call import Call, _duration_s


@pytest.mark.parametrize(
    ("client_s", "expected_s"),
    [
        pytest.param(None, 600.0, id="no deadline: the longest duration"),
        pytest.param(5_000.0, 600.0, id="a longer one: the longest duration"),
        pytest.param(10.0, 9.98, id="time to say that the deadline has passed"),
        pytest.param(0.01, 0.009, id="a tenth of a very short one"),
    ],
)
def test_the_gateways_deadline_comes_before_the_clients(client_s: float | None, expected_s: float) -> None:
    """The client is told why, before its own clock ends the call without a reason."""
    assert expected_s == pytest.approx(_duration_s(client_s, 600.0))


@pytest.mark.parametrize("claimed", ["", "a b", "x" * 129, "line\nbreak", "ключ"])
async def test_an_unusable_request_id_is_replaced(claimed: str) -> None:
    """It goes into logs and headers."""
    call = Call.begin((("x-request-id", claimed),), client_s=None, max_duration_s=1.0)
    assert claimed != call.response_id
    assert 32 == len(call.response_id)
