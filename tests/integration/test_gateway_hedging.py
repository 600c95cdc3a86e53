from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.scripted_worker import HANG, Response, Script, ScriptedWorker, answer, beginning, refusal, serving
from tidegate.inference.v1 import generation_pb2

HANGING: Script = [HANG]
SHARE = 0.1


async def start(
    stack: AsyncExitStack, *scripts: Script, **settings: Any
) -> tuple[RunningGateway, list[ScriptedWorker]]:
    """A gateway that hedges, with a worker for each script. The first is asked first: it has the emptiest pool."""
    workers = []
    for number, script in enumerate(scripts):
        worker = ScriptedWorker(scripts=[script], can_continue=True)
        worker.load.reserved_block_count = number
        worker.load.prefill_tokens_per_second = worker.load.decode_tokens_per_second = 1e6
        workers.append(await stack.enter_async_context(serving(worker)))
    gateway = await stack.enter_async_context(
        running_gateway(*(worker.target for worker in workers), **{"hedge_share": SHARE} | settings)
    )
    return gateway, workers


async def test_a_second_worker_answers_for_one_that_is_late(stack: AsyncExitStack) -> None:
    """The client has one answer, the first worker is rid of the job, and nobody is thought ill of."""
    gateway, (late, quick) = await start(stack, HANGING, answer("a", "b"))
    responses, error = await gateway.generate(text_request())
    assert (None, "ab") == (error, text_of(responses))
    events = [response.WhichOneof("event") for response in responses]
    assert ["started", "delta", "delta", "finished"] == events
    async with asyncio.timeout(PATIENCE_S):
        await late.cancelled.wait()
    assert late.jobs[0].prompt_token_ids == quick.jobs[0].prompt_token_ids
    fleet = gateway.gateway.fleet
    assert [0, 0] == [seat.in_flight for seat in fleet.seats]
    assert {0} == {breaker.opened_count for seat in fleet.seats for breaker in seat.standing.breakers.values()}
    assert not len(fleet.quarantine)


async def test_the_first_worker_may_still_win(stack: AsyncExitStack) -> None:
    """Then the second one is rid of the job, and no token of its own gets to the client."""
    is_due = asyncio.Event()
    gateway, (_, second) = await start(stack, [is_due, *answer("a")], HANGING)
    call = gateway.stub.Generate(text_request())
    async with asyncio.timeout(PATIENCE_S):
        await second.called.wait()
        is_due.set()
        responses = [response async for response in call]
        await second.cancelled.wait()
    assert "a" == text_of(responses)
    assert [0, 0] == [seat.in_flight for seat in gateway.gateway.fleet.seats]


async def test_a_stream_goes_on_behind_a_hedge_that_won(stack: AsyncExitStack) -> None:
    """It is a stream like any other: lost after its first tokens, it is continued."""
    lost: Script = [*beginning("a"), grpc.StatusCode.UNAVAILABLE]
    rest: Script = [Response(delta=generation_pb2.Delta(text=["b"], token_ids=[1])), answer()[-1]]
    gateway, (first, _) = await start(stack, HANGING, lost)
    first.scripts.append(rest)
    responses, error = await gateway.generate(text_request())
    assert (None, "ab") == (error, text_of(responses))


async def test_how_late_the_first_worker_was_is_known_when_the_second_has_won(stack: AsyncExitStack) -> None:
    """The stream may go on for minutes, in which nobody waits for a first token."""
    is_seen = asyncio.Event()
    gateway, _ = await start(stack, HANGING, [*beginning("a"), is_seen, answer()[-1]])
    responses = aiter(gateway.stub.Generate(text_request()))
    seen = [await anext(responses) for _ in range(2)]
    lag_s = gateway.gateway.waiting_room.lag_s
    is_seen.set()
    seen += [response async for response in responses]
    assert ("a", "finished") == (text_of(seen), seen[-1].WhichOneof("event"))
    assert 0 < lag_s


async def test_a_second_worker_that_fails_leaves_the_first_alone(stack: AsyncExitStack) -> None:
    """The client waits on, as it would have."""
    is_due = asyncio.Event()
    failing = [refusal(grpc.StatusCode.INTERNAL, "ENGINE_ERROR")]
    gateway, (_, second) = await start(stack, [is_due, *answer("a")], failing)
    call = gateway.stub.Generate(text_request())
    async with asyncio.timeout(PATIENCE_S):
        await second.called.wait()
        while 1 != sum(seat.in_flight for seat in gateway.gateway.fleet.seats):  # noqa: ASYNC110 - another server
            await asyncio.sleep(0.005)
        is_due.set()
        assert "a" == text_of([response async for response in call])


async def test_a_client_that_leaves_in_the_middle_of_a_race_leaves_nothing(stack: AsyncExitStack) -> None:
    """Both workers are rid of it."""
    gateway, workers = await start(stack, HANGING, HANGING)
    call = gateway.stub.Generate(text_request())
    async with asyncio.timeout(PATIENCE_S):
        await workers[1].called.wait()
        call.cancel()
        for worker in workers:
            await worker.cancelled.wait()
        while any(seat.in_flight for seat in gateway.gateway.fleet.seats):  # noqa: ASYNC110 - another task
            await asyncio.sleep(0.005)


async def test_a_request_that_nobody_waits_for_is_not_hedged(stack: AsyncExitStack) -> None:
    """Nor is any other one where hedging is off."""
    gateway, (_, second) = await start(stack, HANGING, answer("never"))
    request = text_request()
    request.criticality = generation_pb2.CRITICALITY_SHEDDABLE_PLUS
    _, error = await gateway.generate(request, timeout=0.5)
    assert error is not None
    assert (grpc.StatusCode.DEADLINE_EXCEEDED, []) == (error.code, second.jobs)
