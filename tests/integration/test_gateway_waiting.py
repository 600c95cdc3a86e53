from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.jobs import PreparedRequest
from gateway.policy.quarantine import Suspect
from gateway.replay import replay
from gateway.resume import ResumeTokens
from tests.fakes.clock import leap
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.scripted_worker import (
    HANG,
    ScriptedWorker,
    answer,
    at_capacity,
    beginning,
    load_report,
    refusal,
    serving,
)
from tidegate.inference.v1 import generation_pb2
from tidegate.worker.v1 import worker_service_pb2

pytestmark = pytest.mark.usefixtures("data_plane")

PLUS = generation_pb2.CRITICALITY_CRITICAL_PLUS
CRITICAL = generation_pb2.CRITICALITY_CRITICAL
SHEDDABLE = generation_pb2.CRITICALITY_SHEDDABLE
FULL = {"reserved_block_count": 64}


async def start(
    stack: AsyncExitStack, worker: ScriptedWorker, *, load: Mapping[str, Any] = FULL, **settings: Any
) -> RunningGateway:
    """A gateway whose only worker is full."""
    worker.load = load_report(**load)
    await stack.enter_async_context(serving(worker))
    return await stack.enter_async_context(running_gateway(worker.target, **settings))


async def until_waiting(gateway: RunningGateway, count: int) -> None:
    """Until so many requests wait."""
    async with asyncio.timeout(PATIENCE_S):
        while len(gateway.gateway.waiting_room) != count:  # noqa: ASYNC110 - a window for tests alone is none
            await asyncio.sleep(0.005)


async def test_a_request_waits_until_a_worker_reports_room(stack: AsyncExitStack) -> None:
    """No worker is asked before, and the client notices nothing but the time."""
    worker = ScriptedWorker(scripts=[answer("yes")])
    gateway = await start(stack, worker, max_wait_s=60)
    call = asyncio.create_task(gateway.generate(text_request()))
    await until_waiting(gateway, 1)
    assert [] == worker.jobs
    await worker.push()
    responses, error = await call
    assert ("yes", None) == (text_of(responses), error)


async def test_a_job_that_the_worker_has_not_admitted_is_counted_in_spite_of_reports(stack: AsyncExitStack) -> None:
    """They may have been made before the worker read the job; the room that they show is promised only once."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[HANG]])))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    (seat,) = gateway.gateway.fleet.seats
    call = gateway.stub.Generate(text_request())
    await worker.called.wait()
    for _ in range(3):
        number = worker.sample_number
        await worker.push()
        async with asyncio.timeout(PATIENCE_S):
            while seat.load.sample_number <= number:  # noqa: ASYNC110 - a window for tests alone is none
                await asyncio.sleep(0.005)
    assert 1 == seat.unseen.requests
    call.cancel()


async def test_the_more_critical_go_first(stack: AsyncExitStack) -> None:
    """In whichever order they came; each gets the one free block when the one before has ended."""
    worker = ScriptedWorker()
    gateway = await start(stack, worker, max_wait_s=60)
    calls = []
    for number, criticality in enumerate((SHEDDABLE, CRITICAL, PLUS), start=1):
        request = text_request()
        request.criticality = criticality
        calls.append(asyncio.create_task(gateway.generate(request)))
        await until_waiting(gateway, number)
    await worker.push(reserved_block_count=63)
    assert [None, None, None] == [error for _, error in await asyncio.gather(*calls)]
    assert [PLUS, CRITICAL, SHEDDABLE] == [job.criticality for job in worker.jobs]


async def test_a_refusal_for_want_of_room_is_not_the_clients(stack: AsyncExitStack) -> None:
    """The request waits on at its old place, and is asked for again when the worker has reported."""
    worker = ScriptedWorker(scripts=[[at_capacity()], answer("yes")])
    gateway = await start(stack, worker, max_wait_s=60)
    await worker.push()
    responses, error = await gateway.generate(text_request())
    assert ("yes", None, 2) == (text_of(responses), error, len(worker.jobs))


async def test_who_may_not_come_back_from_a_lost_worker_holds_nothing(stack: AsyncExitStack) -> None:
    """Or its tenant would seem to hold more than its share for ever."""
    may_die = asyncio.Event()
    worker = ScriptedWorker(scripts=[[may_die, refusal(grpc.StatusCode.UNAVAILABLE, "ENGINE_DEAD")]])
    gateway = await start(stack, worker, load={})
    fleet, request = gateway.gateway.fleet, text_request()
    prepared = PreparedRequest.from_public(
        request, fleet.models, response_id="r", tenant="default", resume_tokens=ResumeTokens((), lifetime_s=1.0)
    )
    call = asyncio.create_task(gateway.error(request))
    await worker.called.wait()
    others = [Suspect(digest=prepared.demand.digest, instance_id=number, remaining_s=600) for number in (1, 2)]
    fleet.quarantine.add(others, time.monotonic())
    may_die.set()
    error = await call
    headroom = gateway.gateway.waiting_room._line(prepared.request.model)._headroom
    assert ("REQUEST_QUARANTINED", 0, {}) == (error.reason, headroom._held_requests, headroom._held)


async def test_who_waits_in_vain_is_told_what_was_missing(stack: AsyncExitStack) -> None:
    """And when to come back."""
    gateway = await start(stack, ScriptedWorker(), max_wait_s=0.2)
    error = await gateway.error(text_request())
    assert ("KV_EXHAUSTED", "max_wait", "0") == (error.reason, error.metadata["limit"], error.metadata["free_tokens"])
    assert error.retry_after_s is not None


async def test_a_client_that_gives_up_leaves_no_trace(stack: AsyncExitStack) -> None:
    """Its place is free at once."""
    gateway = await start(stack, ScriptedWorker(), max_wait_s=60)
    call = gateway.stub.Generate(text_request())
    await until_waiting(gateway, 1)
    call.cancel()
    await until_waiting(gateway, 0)
    async with asyncio.timeout(PATIENCE_S):
        await gateway.gateway.until_idle()


async def test_who_waits_for_a_worker_that_goes_waits_for_the_next(stack: AsyncExitStack) -> None:
    """In a rolling update one worker goes before another one comes; newcomers are told at once, and go elsewhere."""
    worker = ScriptedWorker()
    gateway = await start(stack, worker, max_wait_s=60)
    call = asyncio.create_task(gateway.generate(text_request()))
    await until_waiting(gateway, 1)
    await worker.push(is_draining=True)
    await gateway.until_workers(0)
    assert "NO_WORKER_AVAILABLE" == (await gateway.error(text_request())).reason
    await worker.push()
    assert (await call)[1] is None


async def test_who_waits_for_a_worker_that_stays_away_is_told_so(stack: AsyncExitStack) -> None:
    """At the end of its wait: the blocks were not the reason."""
    worker = ScriptedWorker()
    gateway = await start(stack, worker, max_wait_s=60)
    call = asyncio.create_task(gateway.error(text_request()))
    await until_waiting(gateway, 1)
    await worker.push(is_draining=True)
    await gateway.until_workers(0)
    leap(60)
    assert "NO_WORKER_AVAILABLE" == (await call).reason


async def test_a_tenant_beyond_its_quota_is_told_what_is_left(stack: AsyncExitStack) -> None:
    """And when more will be; the worker is told the tenant of those that pass."""
    worker = ScriptedWorker()
    terms = {"small": {"tokens_per_minute": 12}}
    gateway = await start(stack, worker, trust_tenant_metadata=True, tenants=terms)
    await worker.push()
    small, large = (("x-tidegate-tenant", "small"),), (("x-tidegate-tenant", "large"),)
    assert (await gateway.generate(text_request(), metadata=small))[1] is None
    error = await gateway.error(text_request(), metadata=small)
    assert ("QUOTA_EXCEEDED", "tenant:small/tokens_per_minute") == (error.reason, error.quota_subject)
    assert ("tokens_per_minute", "12") == (error.metadata["limit"], error.metadata["per_minute"])
    assert int(error.metadata["passing_tokens"]) < int(error.metadata["needed_tokens"])
    assert error.retry_after_s is not None
    assert (await gateway.generate(text_request(), metadata=large))[1] is None
    assert ["small", "large"] == [job.tenant for job in worker.jobs]


async def test_gateways_tell_one_another_what_tenants_ask(stack: AsyncExitStack) -> None:
    """By way of the worker, and where there is more than one."""
    worker = ScriptedWorker(scripts=[[HANG], answer("yes")])
    gateway = await start(stack, worker, load={}, trust_tenant_metadata=True)
    running = gateway.stub.Generate(text_request(), metadata=(("x-tidegate-tenant", "a"),))
    await worker.called.wait()
    for _ in range(2):
        assert (await gateway.generate(text_request(), metadata=(("x-tidegate-tenant", "b"),)))[1] is None
        leap(1)
    running.cancel()
    (seat,) = gateway.gateway.fleet.seats
    other = worker_service_pb2.GatewayQueue(gateway_id=7, waiting_token_count=90, above_share_token_count=80)
    other.tenant_demands.add(tenant="a", tokens_per_second=2.5)
    await worker.push(gateway_queues=[other])
    async with asyncio.timeout(PATIENCE_S):
        while not (heard := gateway.gateway.fleet.gateways_elsewhere(seat.model)):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)

    told = [[one.tenant for one in job.gateway_queue.tenant_demands] for job in worker.jobs]
    assert [[], [], ["a", "b"]] == [sorted(tenants) for tenants in told]
    assert [(7, 90, 80, (("a", 2.5),))] == [
        (one.gateway_id, one.waiting_tokens, one.above_share_tokens, one.tenant_demands) for one in heard
    ]


async def until_it_lets_others_go_first(
    gateway: RunningGateway, worker: ScriptedWorker, others: int, **load: Any
) -> None:
    """There is room at ``worker``, for which so many other gateways come first."""
    queues = [queue_elsewhere(number, waiting_token_count=10) for number in range(1, others + 1)]
    await worker.push(gateway_queues=queues, **load)
    (model,) = gateway.gateway.fleet.models.values()
    async with asyncio.timeout(PATIENCE_S):
        while gateway.gateway.waiting_room._line(model).turn.ask_again_at is None:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


def queue_elsewhere(gateway_id: int, *, waiting_token_count: int) -> worker_service_pb2.GatewayQueue:
    """Of another gateway, whose first in line is as critical as can be."""
    return worker_service_pb2.GatewayQueue(
        gateway_id=gateway_id, waiting_token_count=waiting_token_count, first_criticality=PLUS
    )


async def test_who_gives_up_while_others_go_first_leaves_nothing_to_be_done(stack: AsyncExitStack) -> None:
    """Least of all again and again, at a time that is over."""
    worker = ScriptedWorker()
    gateway = await start(stack, worker, max_wait_s=60)
    call = gateway.stub.Generate(text_request())
    await until_waiting(gateway, 1)
    await until_it_lets_others_go_first(gateway, worker, others=60)  # for a second and a half
    call.cancel()
    await until_waiting(gateway, 0)
    room = gateway.gateway.waiting_room
    leap(60)
    async with asyncio.timeout(PATIENCE_S):
        while room._timer_at is not None:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


async def keep_room(gateway: RunningGateway, worker: ScriptedWorker) -> list[Any]:
    """More critical requests come, and fill ``worker``: all others have to leave room for them. Cancel these calls."""
    request = text_request()
    request.criticality = PLUS
    calls = [gateway.stub.Generate(request) for _ in range(3)]
    (seat,) = gateway.gateway.fleet.seats
    async with asyncio.timeout(PATIENCE_S):
        while len(worker.jobs) < 3:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
        while seat.unseen.requests:
            await worker.push(**FULL)
            await asyncio.sleep(0.005)
    return calls


async def test_who_needs_no_less_than_one_who_found_no_room_is_not_tried(stack: AsyncExitStack) -> None:
    """With each report of each worker, all that wait would be tried on all workers."""
    worker = ScriptedWorker(scripts=[[*beginning("x"), HANG]])
    gateway = await start(stack, worker, load={}, max_wait_s=60, trust_tenant_metadata=True)
    calls = await keep_room(gateway, worker)
    for number in range(20):
        calls.append(gateway.stub.Generate(text_request(), metadata=(("x-tidegate-tenant", f"tenant-{number}"),)))
    await until_waiting(gateway, 20)
    tried: list[Any] = []
    gateway.gateway.fleet.on_decision = tried.append
    gateway.gateway.waiting_room._serve_all()
    gateway.gateway.fleet.on_decision = None
    assert 1 == len(tried)
    for call in calls:
        call.cancel()


async def test_those_behind_do_not_set_back_who_waits_for_its_turn(stack: AsyncExitStack) -> None:
    """They may be tried, since all leave room for the more critical; that there is none for them is not its affair."""
    worker = ScriptedWorker(scripts=[[*beginning("x"), HANG]])
    gateway = await start(stack, worker, load={}, max_wait_s=60, trust_tenant_metadata=True)
    calls = await keep_room(gateway, worker)
    small, large = text_request(), text_request("a longer one, " * 20)
    calls.append(gateway.stub.Generate(small, metadata=(("x-tidegate-tenant", "a"),)))
    await until_waiting(gateway, 1)
    calls.append(gateway.stub.Generate(large, metadata=(("x-tidegate-tenant", "b"),)))
    await until_waiting(gateway, 2)
    room = gateway.gateway.waiting_room
    await until_it_lets_others_go_first(gateway, worker, 1, reserved_block_count=63)
    for _ in range(5):
        leap(0.01)
        room._serve_all()
    assert {(1, "b"): 1} == room.waiting
    for call in calls:
        call.cancel()


async def test_a_turn_is_no_more_to_be_waited_for_when_others_have_gone(stack: AsyncExitStack) -> None:
    """They may have taken the room with them."""
    worker = ScriptedWorker()
    gateway = await start(stack, worker, max_wait_s=60)
    call = gateway.stub.Generate(text_request())
    await until_waiting(gateway, 1)
    await until_it_lets_others_go_first(gateway, worker, others=60)
    await worker.push(
        gateway_queues=[queue_elsewhere(number, waiting_token_count=0) for number in range(1, 61)], **FULL
    )
    (model,) = gateway.gateway.fleet.models.values()
    async with asyncio.timeout(PATIENCE_S):
        while gateway.gateway.fleet.queues_elsewhere(model):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
    leap(5)  # far beyond its turn, and not as far as its wait may be
    room = gateway.gateway.waiting_room
    async with asyncio.timeout(PATIENCE_S):
        while room._timer_at is None or room._timer_at <= room._loop.time():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
    call.cancel()


async def test_a_request_larger_than_a_quota_is_told_not_to_come_back(stack: AsyncExitStack) -> None:
    """No wait would help it."""
    worker = ScriptedWorker()
    gateway = await start(stack, worker, tenants={"default": {"tokens_per_minute": 5}})
    error = await gateway.error(text_request())
    assert ("QUOTA_EXCEEDED", None, []) == (error.reason, error.retry_after_s, worker.jobs)


async def test_what_was_not_served_counts_against_no_quota(stack: AsyncExitStack) -> None:
    """One request a minute, of which the first found no room."""
    worker = ScriptedWorker()
    gateway = await start(stack, worker, max_wait_s=0.2, tenants={"default": {"requests_per_minute": 1}})
    assert "KV_EXHAUSTED" == (await gateway.error(text_request())).reason
    await worker.push()
    (seat,) = gateway.gateway.fleet.seats
    async with asyncio.timeout(PATIENCE_S):
        while seat.load.reserved_blocks:  # noqa: ASYNC110 - a window for tests alone is none
            await asyncio.sleep(0.005)
    assert (await gateway.generate(text_request()))[1] is None
    assert "QUOTA_EXCEEDED" == (await gateway.error(text_request())).reason


async def test_the_last_place_of_the_gateway_goes_to_the_more_critical(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Whoever waits and is less critical makes way; whoever is as critical does not. All of it can be replayed."""
    worker, log = ScriptedWorker(), tmp_path / "decisions.jsonl"
    gateway = await start(stack, worker, max_wait_s=60, max_in_flight=1, decision_log=log)
    sheddable = text_request()
    sheddable.criticality = SHEDDABLE
    first = asyncio.create_task(gateway.error(sheddable))
    await until_waiting(gateway, 1)
    second = asyncio.create_task(gateway.generate(text_request()))
    evicted = await first
    assert ("EVICTED", "max_in_flight") == (evicted.reason, evicted.metadata["limit"])
    await until_waiting(gateway, 1)
    assert "ADMISSION_QUEUE_FULL" == (await gateway.error(text_request())).reason
    await worker.push()
    assert (await second)[1] is None
    await stack.aclose()  # the log is complete
    counts: Counter[str] = Counter()
    assert [] == list(replay(log.read_text().splitlines(), counts))
    assert 3 == counts["limit"]


async def test_who_insists_on_more_than_there_is_time_for_does_not_wait(stack: AsyncExitStack) -> None:
    """100 tokens a second, 20 seconds, 900 tokens, and no room yet."""
    worker = ScriptedWorker()
    pace = {"decode_tokens_per_second": 100.0, "prefill_tokens_per_second": 1000.0, "running_request_count": 4}
    gateway = await start(stack, worker, load={**FULL, **pace}, max_wait_s=60)
    request = text_request(max_output_tokens=900)
    request.short_deadline_policy = generation_pb2.SHORT_DEADLINE_POLICY_REFUSE
    error = await gateway.error(request, timeout=20)
    assert ("DEADLINE_TOO_SHORT", "900") == (error.reason, error.metadata["max_output_tokens"])
    assert 0 < int(error.metadata["fitting_output_tokens"]) < 900
    assert [] == worker.jobs


async def test_the_room_can_be_read(stack: AsyncExitStack) -> None:
    """Who waits, for how long, and why others do not."""
    gateway = await start(stack, ScriptedWorker(), max_wait_s=60, tenants={"default": {"requests_per_minute": 1}})
    room = gateway.gateway.waiting_room
    (model,) = gateway.gateway.fleet.models.values()
    assert (0.0, 0.0) == (room.oldest_age_s, room.predicted_wait_s(model))
    call = gateway.stub.Generate(text_request())
    await until_waiting(gateway, 1)
    assert {(1, "default"): 1} == room.waiting
    assert room.oldest_age_s >= 0
    assert room.predicted_wait_s(model) is None
    await gateway.error(text_request())
    assert {"QUOTA_EXCEEDED": 1} == room.refusals
    call.cancel()
