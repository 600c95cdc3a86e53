from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.running_worker import RunningWorker, running_worker
from tests.fakes.service_process import service_process
from worker.config import WorkerSettings

POISON = "a prompt that no engine survives"


async def start(stack: AsyncExitStack) -> tuple[list[RunningGateway], list[RunningWorker]]:
    """Two gateways with the same three workers."""
    settings = WorkerSettings(
        engine="sim", listen="127.0.0.1:0", drain_grace_s=5, sim_time_scale=0.01, sim_fault_text=POISON
    )
    workers = [await stack.enter_async_context(running_worker(settings)) for _ in range(3)]
    addresses = [worker.worker.address for worker in workers]
    return [await stack.enter_async_context(running_gateway(*addresses)) for _ in range(2)], workers


async def test_a_request_that_kills_two_engines_is_refused_on_every_gateway(stack: AsyncExitStack) -> None:
    """The third worker lives, and answers everybody else; the refusal says for how long it holds."""
    gateways, workers = await start(stack)
    request = text_request(f"Please: {POISON}", model="sim")
    first = await gateways[0].error(request)
    async with asyncio.timeout(PATIENCE_S):
        for gateway in gateways:
            await gateway.until_workers(1)
        while any(2 != len(gateway.gateway.fleet.quarantine) for gateway in gateways):  # noqa: ASYNC110 - other servers
            await asyncio.sleep(0.005)
    assert "NO_WORKER_AVAILABLE" == first.reason
    for gateway in (*gateways, *gateways):
        refusal = await gateway.error(request)
        assert ("REQUEST_QUARANTINED", "2") == (refusal.reason, refusal.metadata["deaths"])
        assert 0 < int(refusal.metadata["expires_in_s"]) <= 600
        responses, error = await gateway.generate(text_request("Hello", model="sim"))
        assert error is None
        assert text_of(responses)
    (seat,) = (seat for seat in gateways[0].gateway.fleet.seats if not seat.load.is_draining)
    assert seat.worker_id in {worker.worker.address for worker in workers if not worker.life.done()}


async def test_a_gateway_that_starts_later_knows_of_it(stack: AsyncExitStack) -> None:
    """What matters is with the workers, not with a gateway."""
    gateways, workers = await start(stack)
    request = text_request(POISON, model="sim")
    await gateways[0].error(request)
    async with asyncio.timeout(PATIENCE_S):
        await gateways[0].until_workers(1)
        (seat,) = (seat for seat in gateways[0].gateway.fleet.seats if not seat.load.is_draining)
        (survivor,) = (worker for worker in workers if worker.worker.address == seat.worker_id)
        while 2 != len((await survivor.load()).suspects):  # noqa: ASYNC110 - another process, in real life
            await asyncio.sleep(0.005)
    late = await stack.enter_async_context(running_gateway(survivor.worker.address))
    assert "REQUEST_QUARANTINED" == (await late.error(request)).reason


async def test_the_seed_does_not_make_it_another_request(stack: AsyncExitStack) -> None:
    """Another prompt does."""
    gateways, _ = await start(stack)
    await gateways[0].error(text_request(POISON, model="sim", seed=1))
    async with asyncio.timeout(PATIENCE_S):
        await gateways[0].until_workers(1)
    assert "REQUEST_QUARANTINED" == (await gateways[0].error(text_request(POISON, model="sim", seed=2))).reason


async def test_a_request_that_takes_whole_workers_down_in_the_middle_of_its_tokens_is_refused(
    stack: AsyncExitStack,
) -> None:
    """The first goes without a word behind three tokens, the next two before they have given one; the fourth lives."""
    fault = ("--sim-fault-text", POISON, "--sim-fault", "kill", "--sim-fault-after-tokens", "3")
    arguments = ("--engine", "sim", "--sim-time-scale", "0.05", *fault)
    workers = [await stack.enter_async_context(service_process("worker", *arguments)) for _ in range(4)]
    addresses = [worker.address for worker in workers]
    gateways = [await stack.enter_async_context(running_gateway(*addresses)) for _ in range(2)]
    request = text_request(f"Please: {POISON}", model="sim")
    responses, error = await gateways[0].generate(request)
    assert error is not None
    assert ("REQUEST_QUARANTINED", "3") == (error.reason, error.metadata["deaths"])
    assert text_of(responses)
    async with asyncio.timeout(PATIENCE_S):
        for gateway in gateways:
            await gateway.until_workers(1)
        while 3 != len(gateways[1].gateway.fleet.quarantine):  # noqa: ASYNC110 - another server
            await asyncio.sleep(0.005)
    for gateway in gateways:
        assert "REQUEST_QUARANTINED" == (await gateway.error(request)).reason
        assert (await gateway.generate(text_request("Hello", model="sim")))[1] is None
    assert 1 == sum(worker.process.returncode is None for worker in workers)
