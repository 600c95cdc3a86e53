from __future__ import annotations

import asyncio
import urllib.request
from contextlib import AsyncExitStack

from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import running_gateway, text_request
from tests.fakes.running_worker import running_worker
from tests.fakes.scripted_worker import HANG, Response, ScriptedWorker, beginning, serving
from tidegate.inference.v1 import generation_pb2
from tidegate.telemetry import catalogue
from tidegate.telemetry.metric import Kind, Metric
from worker.config import WorkerSettings

_SETTINGS = WorkerSettings(
    engine="sim", listen="127.0.0.1:0", admin_listen="127.0.0.1:0", drain_grace_s=5, sim_time_scale=0.01
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(address: str) -> Samples:
    """All samples of an admin port, by name and labels."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S) as response:
            return str(response.read().decode())

    families = text_string_to_metric_families(await asyncio.to_thread(read))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def key(metric: Metric, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Where a value stands."""
    (name,) = metric.prometheus_series
    return name, frozenset((label.replace("__", "."), value) for label, value in labels.items())


async def test_both_services_show_the_kv_cache(stack: AsyncExitStack) -> None:
    """The worker as it is, and the gateway as it was told."""
    worker = await stack.enter_async_context(running_worker(_SETTINGS))
    gateway = await stack.enter_async_context(running_gateway(worker.worker.address, admin_listen="127.0.0.1:0"))
    await gateway.generate(text_request(model="sim"))
    of_worker, of_gateway = await scrape(worker.worker.admin_address), await scrape(gateway.gateway.admin_address)
    address = worker.worker.address
    for state in ("total", "free"):
        assert 31838 == of_worker[key(catalogue.KV_BLOCKS, tidegate_state=state)]
    assert 31838 == of_gateway[key(catalogue.WORKER_BLOCKS, tidegate_state="total", server_address=address)]
    assert key(catalogue.WORKER_BLOCKS, tidegate_state="reclaimable", server_address=address) in of_gateway
    assert 0 == of_worker[key(catalogue.KV_UTILIZATION)]
    assert 16 == of_worker[key(catalogue.KV_BLOCK_SIZE)]
    assert 8 <= of_worker[key(catalogue.ENGINE_TOKENS, gen_ai_token_type="output")]
    assert 1 == of_gateway[key(catalogue.WORKERS, tidegate_state="serving")]


async def test_what_clients_have_not_read_is_shown(stack: AsyncExitStack) -> None:
    """Bytes and calls, while a client reads nothing; none of them once it has left."""
    big = [Response(delta=generation_pb2.Delta(text=["x" * 100_000], token_ids=[number])) for number in range(200)]
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[*beginning(), *big, HANG]])))
    gateway = await stack.enter_async_context(running_gateway(worker.target, admin_listen="127.0.0.1:0"))
    address = gateway.gateway.admin_address
    call = gateway.stub.Generate(text_request(max_output_tokens=300))
    await call.read()
    async with asyncio.timeout(PATIENCE_S):
        while not (unread := await scrape(address))[key(catalogue.READERS_HELD)]:  # noqa: ASYNC110 - the network fills
            await asyncio.sleep(0.02)
    assert 1 == unread[key(catalogue.READERS_BEHIND)]
    call.cancel()
    await gateway.gateway.until_idle()
    read = await scrape(address)
    assert (0, 0) == (read[key(catalogue.READERS_BEHIND)], read[key(catalogue.READERS_HELD)])


async def test_every_observed_metric_is_there_from_the_start(stack: AsyncExitStack) -> None:
    """A dashboard of an idle system shows zeros, not holes. What other parts observe comes with them, as tracing."""
    later = {catalogue.CALIBRATION_DRIFT, catalogue.QUEUE_REQUESTS, catalogue.TRACE_SPANS, catalogue.OPEN_SPANS}
    worker = await stack.enter_async_context(running_worker(_SETTINGS))
    gateway = await stack.enter_async_context(running_gateway(worker.worker.address, admin_listen="127.0.0.1:0"))
    for address, metrics in (
        (worker.worker.admin_address, catalogue.WORKER),
        (gateway.gateway.admin_address, catalogue.GATEWAY),
    ):
        shown = {name for name, _ in await scrape(address)}
        observed = {metric for metric in metrics if metric.kind in (Kind.OBSERVED_GAUGE, Kind.OBSERVED_COUNTER)}
        assert set() == {metric.prometheus_series[0] for metric in observed - later} - shown
