"""Follows a worker's load reports, and notices when they can no longer be believed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.criticality import rank_of
from gateway.policy.elsewhere import GatewayQueue
from gateway.policy.load import WorkerLoad
from gateway.policy.quarantine import Suspect
from gateway.policy.silence import LOOK_S, Silence
from gateway.workers.client import WorkerClient
from gateway.workers.errors import LostWorkerError, SilentWorkerError
from tidegate.worker.v1 import worker_service_pb2

# A worker reports at least once a second. One that is stopped has to be out of rotation within 3 seconds.
STALE_AFTER_S = 2.8


async def watch_load(
    client: WorkerClient, *, stale_after_s: float = STALE_AFTER_S, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[WorkerLoad]:
    """The worker's loads as they come in; close the generator to stop.

    It ends only by raising: ``WorkerCallError``, ``SilentWorkerError`` when reports stay out for ``stale_after_s``
    (``gateway.policy.silence`` tells how these are counted), or ``LostWorkerError`` when the stream ends, or the
    worker was restarted.
    """
    last_sample = 0
    async with client.watch_load() as reports:
        while True:
            try:
                async with _patience(Silence(stale_after_s, clock()), clock):
                    report = (await anext(reports)).load_report
            except TimeoutError:
                raise SilentWorkerError(f"no load report for {stale_after_s:g} s") from None
            except StopAsyncIteration:
                raise LostWorkerError("it ended its load reports") from None
            if report.sample_number <= last_sample:
                raise LostWorkerError("it was restarted")
            last_sample = report.sample_number
            yield _load(report, received_at=clock())


@asynccontextmanager
async def _patience(silence: Silence, clock: Callable[[], float]) -> AsyncIterator[None]:
    """Around the wait for a report. Raises ``TimeoutError`` when the silence becomes too long."""
    async with asyncio.timeout(None) as timeout:
        looks = _Looks(silence, clock, timeout)
        try:
            yield
        finally:
            looks.end()


class _Looks:
    """Looks at the clock again and again; no function, which would know itself and make a circle of each report."""

    def __init__(self, silence: Silence, clock: Callable[[], float], timeout: asyncio.Timeout) -> None:
        """``timeout`` expires when the silence is too long. ``end`` them."""
        self._silence = silence
        self._clock = clock
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._silence.is_too_long(self._clock()):
            self._timeout.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(LOOK_S, self._look)


def _load(report: worker_service_pb2.LoadReport, *, received_at: float) -> WorkerLoad:
    return WorkerLoad(
        received_at=received_at,
        block_size=max(1, report.block_size),
        total_blocks=report.total_block_count,
        free_blocks=report.free_block_count,
        reserved_blocks=report.reserved_block_count,
        reclaimable_blocks=report.reclaimable_block_count,
        running_requests=report.running_request_count,
        pending_prefill_tokens=report.pending_prefill_token_count,
        prefill_tokens_per_s=report.prefill_tokens_per_second,
        decode_tokens_per_s=report.decode_tokens_per_second,
        is_draining=report.is_draining,
        released_blocks_per_s=report.released_blocks_per_second,
        expected_output_tokens=report.expected_output_token_count,
        admissible_requests=report.admissible_request_count if report.HasField("admissible_request_count") else None,
        admissible_prompt_tokens=(
            report.admissible_prompt_token_count if report.HasField("admissible_prompt_token_count") else None
        ),
        engine_step_age_s=report.engine_step_age.ToNanoseconds() / 1e9,
        instance_id=report.instance_id,
        sample_number=report.sample_number,
        drained_blocks_per_s=report.drained_blocks_per_second,
        output_quantile=report.output_quantile,
        tenant_blocks=tuple((held.tenant, held.reserved_block_count) for held in report.tenant_blocks),
        gateway_queues=tuple(_queue(queue, received_at) for queue in report.gateway_queues),
        suspects=tuple(
            Suspect(
                digest=suspect.request_digest,
                instance_id=suspect.instance_id,
                remaining_s=suspect.remaining_duration.ToNanoseconds() / 1e9,
                is_silent=suspect.is_silent,
            )
            for suspect in report.suspects
        ),
    )


def _queue(queue: worker_service_pb2.GatewayQueue, now: float) -> GatewayQueue:
    told_at = now - queue.age.ToNanoseconds() / 1e9
    return GatewayQueue(
        gateway_id=queue.gateway_id,
        waiting_tokens=queue.waiting_token_count,
        first_rank=rank_of(queue.first_criticality),
        is_first_above_share=queue.is_first_above_share,
        first_came_at=told_at - queue.first_wait_duration.ToNanoseconds() / 1e9,
        told_at=told_at,
        tenant_demands=tuple((one.tenant, one.tokens_per_second) for one in queue.tenant_demands),
        above_share_tokens=queue.above_share_token_count,
    )
