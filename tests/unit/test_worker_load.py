from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from tests.fakes.clock import ManualClock, leap
from tests.fakes.engine_loads import IDLE
from tests.fakes.feeds import wide_feed
from tidegate.worker.v1 import worker_service_pb2
from worker.engine import EngineLoad
from worker.ledger import Capacity, Ledger
from worker.load import LoadFeed
from worker.output_lengths import OutputLengths
from worker.pace import Pace


def books(figures: Callable[[], EngineLoad], clock: Callable[[], float]) -> tuple[Ledger, Pace]:
    """Those of an engine of 1,000 blocks."""
    capacity = Capacity(total_blocks=1_000, block_size=16, max_running_requests=10)
    ledger = Ledger(capacity, OutputLengths(quantile=0.7), wide_feed(), clock)
    return ledger, Pace(ledger, figures, clock)


async def test_what_a_gateway_tells_of_itself_is_passed_on() -> None:
    """To the others, in each report, with its age."""
    clock = ManualClock()
    ledger, pace = books(lambda: IDLE, clock)
    feed = LoadFeed(ledger, pace, lambda: IDLE, lambda: False)
    told = worker_service_pb2.GatewayQueue(
        gateway_id=7, waiting_token_count=90, is_first_above_share=True, above_share_token_count=80
    )
    told.first_wait_duration.FromMilliseconds(250)
    told.tenant_demands.add(tenant="a", tokens_per_second=2.5)
    feed.hear(told)
    reports = feed.reports()

    (passed_on,) = (await anext(reports)).gateway_queues

    passed_on.ClearField("age")
    assert told == passed_on
    await reports.aclose()


async def test_a_process_that_stood_still_hears_of_its_engines_steps_before_it_reports() -> None:
    """Both are due when it goes on; a report that came first would show an engine that has stalled."""
    loop = asyncio.get_running_loop()

    def clock() -> float:
        return loop.time()

    figures = replace(IDLE, running_requests=1, last_step_at=clock())
    ledger, pace = books(lambda: figures, clock)
    feed = LoadFeed(ledger, pace, lambda: figures, lambda: False)

    async def step() -> None:
        nonlocal figures
        await asyncio.sleep(0.05)
        figures = replace(figures, step_count=1, last_step_at=clock())
        pace.after_step()
        feed.changed()

    pace.give_work(had_work=pace.has_work)
    ledger.admit(tenant="", prompt_tokens=10, max_output_tokens=100)
    reports = feed.reports()
    await anext(reports)
    feed.changed()
    report, engine = asyncio.ensure_future(anext(reports)), asyncio.create_task(step())
    await asyncio.sleep(0)
    leap(10)
    assert (await report).engine_step_age.ToMilliseconds() < 1_000
    await engine
    await reports.aclose()
