from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import grpc
import pytest

from gateway.workers.errors import LostWorkerError, SilentWorkerError, UnusableWorkerError, WorkerCallError
from gateway.workers.reconnection import reconnect_forever
from tests.fakes.clock import ManualClock
from tidegate.rpc.status import WORKER_DOMAIN, RpcError

LOADING = WorkerCallError(
    RpcError(code=grpc.StatusCode.UNAVAILABLE, reason="NOT_SERVING", domain=WORKER_DOMAIN, message="loading")
)
DIFFERENT = UnusableWorkerError("it renders differently")


class Stopped(BaseException):
    """Ends what never ends."""


async def waits_s(*sessions: tuple[float, Exception], in_use: bool = True) -> Sequence[float]:
    """The waits between sessions of so many seconds that end so; ``in_use``: they get past the handshake."""
    clock, left, waits = ManualClock(), list(sessions), []

    async def session(begin_use: Callable[[], None]) -> None:
        if not left:
            raise Stopped
        if in_use:
            begin_use()
        seconds, error = left.pop(0)
        clock.advance(seconds)
        raise error

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with pytest.raises(Stopped):
        await reconnect_forever(session, target="worker:1", clock=clock, sleep=sleep)
    return waits


async def test_a_worker_that_may_be_ready_any_moment_is_asked_every_second_at_least() -> None:
    """The waits have jitter and a low bound."""
    waits = await waits_s(*[(0.1, LOADING)] * 200)
    assert 200 == len(waits) == len(set(waits))
    assert 0.5 < max(waits) <= 1.0


@pytest.mark.parametrize("lost", [SilentWorkerError("no load report"), LostWorkerError("it was restarted")])
async def test_a_worker_that_is_lost_as_soon_as_it_is_back_is_asked_as_often(lost: LostWorkerError) -> None:
    """However often it was asked in vain while it was out of reach: a busy host must not keep it out for long."""
    waits = await waits_s(*[(3.0, LOADING)] * 20, *[(2.9, lost)] * 50)
    assert 70 == len(waits)
    assert max(waits) <= 1.0


async def test_a_worker_that_failed_its_proof_is_asked_less_and_less() -> None:
    """To ask costs a tokenizer each time."""
    waits = await waits_s(*[(0.1, DIFFERENT)] * 200)
    assert max(waits[:3]) <= 0.8
    assert 15 < max(waits) <= 30


async def test_a_worker_that_was_of_use_is_tried_again_at_once() -> None:
    """And the waits begin anew."""
    waits = await waits_s(*[(0.1, DIFFERENT)] * 50, (60.0, DIFFERENT), (0.1, DIFFERENT))
    assert 51 == len(waits)
    assert waits[-1] <= 0.2


async def test_a_long_wait_for_a_connection_does_not_make_a_worker_stable(caplog: pytest.LogCaptureFixture) -> None:
    """An address where nobody is costs one line in the log, and each try is followed by a wait."""
    with caplog.at_level(logging.WARNING):
        waits = await waits_s(*[(10.0, LOADING)] * 20, in_use=False)
    assert (20, 1) == (len(waits), len(caplog.records))


async def test_each_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Unless the worker was in use in between."""
    with caplog.at_level(logging.WARNING):
        await waits_s((0.1, LOADING), (0.1, LOADING), (0.1, DIFFERENT), (0.1, DIFFERENT), (60.0, DIFFERENT))
    messages = [record.getMessage() for record in caplog.records]
    assert ["loading", "differently", "differently"] == [message.split()[-1] for message in messages]


async def test_what_nobody_foresaw_costs_one_worker_and_not_the_gateway(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its trace, and the worker is tried again."""
    waits = await waits_s((0.1, KeyError("odd")))
    assert 1 == len(waits)
    assert "KeyError: 'odd'" in caplog.text
