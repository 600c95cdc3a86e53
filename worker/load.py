"""Load reports: what gateways route and admit by, pushed to them as it changes."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Callable

from tidegate.worker.v1 import worker_service_pb2
from worker.engine import EngineLoad
from worker.ledger import Ledger
from worker.pace import Pace
from worker.suspects import SuspectBoard
from worker.waiting_board import GatewayQueue, WaitingBoard

# An engine step takes 4 ms and more; a gateway that hears of every fifth one is still ahead of its next decision. The
# interval varies, so that of several gateways none is always the first to hear.
_SHORTEST_INTERVAL_S = (0.015, 0.025)
_LONGEST_INTERVAL_S = 1.0
_LATE_S = 0.2


class LoadFeed:
    """The load of one engine, for any number of watchers."""

    def __init__(
        self, ledger: Ledger, pace: Pace, engine_load: Callable[[], EngineLoad], is_draining: Callable[[], bool]
    ) -> None:
        self._ledger = ledger
        self._pace = pace
        self._engine_load = engine_load
        self._is_draining = is_draining
        self.sample_number = 0  # of the latest report
        self._instance_id = secrets.randbits(64) | 1
        self.suspects = SuspectBoard()
        self._waiting = WaitingBoard()
        self._change = asyncio.Event()

    def changed(self) -> None:
        """Something that a report shows has changed."""
        self._change.set()
        self._change = asyncio.Event()

    def hear(self, queue: worker_service_pb2.GatewayQueue) -> None:
        """A gateway tells what waits in it."""
        self._waiting.tell(
            GatewayQueue(
                gateway_id=queue.gateway_id,
                waiting_tokens=queue.waiting_token_count,
                first_criticality=queue.first_criticality,
                is_first_above_share=queue.is_first_above_share,
                first_wait_s=queue.first_wait_duration.ToNanoseconds() / 1e9,
                tenant_demands=tuple((one.tenant, one.tokens_per_second) for one in queue.tenant_demands),
                above_share_tokens=queue.above_share_token_count,
            )
        )

    async def wait_for_change(self) -> None:
        """Until the next change."""
        await self._change.wait()

    async def reports(self) -> AsyncGenerator[worker_service_pb2.LoadReport]:
        """A report at once, then on changes and at least once a second, until a drain has come to its end."""
        loop = asyncio.get_running_loop()
        while True:
            change = self._change
            yield self._report()
            due = loop.time() + _LONGEST_INTERVAL_S
            if self._is_draining() and not self._ledger.requests:
                return
            pause_s = random.uniform(*_SHORTEST_INTERVAL_S)
            await asyncio.sleep(pause_s)
            try:
                async with asyncio.timeout(_LONGEST_INTERVAL_S - pause_s):
                    await change.wait()
            except TimeoutError:
                pass  # no change is news, too
            if loop.time() > due + _LATE_S:
                # The process stood still, and has yet to hear of the steps that its engine made: without them it would
                # look as if the engine had stalled.
                await asyncio.sleep(pause_s)

    def _report(self) -> worker_service_pb2.LoadReport:
        self.sample_number += 1
        ledger, pace, load = self._ledger, self._pace, self._engine_load()
        room = ledger.room
        report = worker_service_pb2.LoadReport(
            sample_number=self.sample_number,
            total_block_count=ledger.capacity.total_blocks,
            free_block_count=load.free_blocks,
            reclaimable_block_count=load.reclaimable_blocks,
            reserved_block_count=ledger.reserved_blocks,
            block_size=ledger.capacity.block_size,
            running_request_count=load.running_requests,
            waiting_request_count=load.waiting_requests,
            pending_prefill_token_count=ledger.pending_prefill_tokens,
            prefill_tokens_per_second=pace.prefill_tokens_per_s,
            decode_tokens_per_second=pace.decode_tokens_per_s,
            preemption_count=load.preemptions,
            is_draining=self._is_draining(),
            released_blocks_per_second=ledger.released_blocks_per_s,
            expected_output_token_count=ledger.usual_output_tokens or 0,
            admissible_request_count=room.requests,
            admissible_prompt_token_count=room.prompt_tokens,
            instance_id=self._instance_id,
            drained_blocks_per_second=ledger.drained_blocks_per_s,
            output_quantile=ledger.output_quantile,
        )
        report.observed_time.GetCurrentTime()
        for suspect in self.suspects.current():
            shared = report.suspects.add(
                request_digest=suspect.digest, instance_id=suspect.instance_id, is_silent=suspect.is_silent
            )
            shared.remaining_duration.FromNanoseconds(round(suspect.remaining_s * 1e9))
        if len(holders := ledger.tenant_blocks) > 1:
            for tenant, blocks in holders:
                report.tenant_blocks.add(tenant=tenant, reserved_block_count=blocks)
        for queue in self._waiting.current():
            told = report.gateway_queues.add(
                gateway_id=queue.gateway_id,
                waiting_token_count=queue.waiting_tokens,
                first_criticality=queue.first_criticality,
                is_first_above_share=queue.is_first_above_share,
                above_share_token_count=queue.above_share_tokens,
            )
            told.first_wait_duration.FromNanoseconds(round(queue.first_wait_s * 1e9))
            told.age.FromNanoseconds(round(queue.age_s * 1e9))
            for tenant, tokens_per_s in queue.tenant_demands:
                told.tenant_demands.add(tenant=tenant, tokens_per_second=tokens_per_s)
        report.engine_step_age.FromNanoseconds(round(pace.step_age_s * 1e9))
        return report
