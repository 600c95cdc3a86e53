from __future__ import annotations

import asyncio
import logging
import os
import statistics
import time
from contextlib import AsyncExitStack

import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import running_gateway, text_request
from tests.fakes.running_worker import running_worker
from tidegate.worker.v1 import worker_service_pb2
from worker.config import WorkerSettings

pytestmark = pytest.mark.usefixtures("data_plane")

_LOGGER = logging.getLogger(__name__)

# The goal is 200; the default keeps a run of all tests short.
TRIALS = int(os.environ.get("TIDEGATE_TEST_CANCELS", "50"))


def is_idle(load: worker_service_pb2.LoadReport) -> bool:
    """Whether no block is held or promised."""
    return not load.reserved_block_count and load.free_block_count == load.total_block_count


async def test_cancelled_calls_free_their_blocks(stack: AsyncExitStack) -> None:
    """The worker's own reports tell when. How long it took is logged (``--log-cli-level=INFO``)."""
    settings = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=1)
    worker = await stack.enter_async_context(running_worker(settings))
    gateway = await stack.enter_async_context(running_gateway(worker.worker.address))
    tasks = len(asyncio.all_tasks())
    watch = worker.stub.WatchLoad(worker_service_pb2.WatchLoadRequest())
    reports = aiter(watch)
    delays_ms = []
    for trial in range(TRIALS):
        call = gateway.stub.Generate(text_request(model="sim", max_output_tokens=3000))
        for _ in range(1 + trial % 10):
            await call.read()
        async with asyncio.timeout(PATIENCE_S):
            while is_idle((await anext(reports)).load_report):
                pass
            begin = time.perf_counter()
            call.cancel()
            while not is_idle((await anext(reports)).load_report):
                pass
        delays_ms.append((time.perf_counter() - begin) * 1000)
    watch.cancel()
    percentiles = statistics.quantiles(delays_ms, n=100)
    _LOGGER.info("from cancel to free blocks: p50 %.1f ms, p99 %.1f ms", percentiles[49], percentiles[98])
    await gateway.gateway.until_idle()
    assert [0] == [seat.in_flight for seat in gateway.gateway.fleet.seats]
    async with asyncio.timeout(PATIENCE_S):
        while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 - the last ones are about to end
            await asyncio.sleep(0)
