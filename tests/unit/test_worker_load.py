from __future__ import annotations

import asyncio
from dataclasses import replace

from tests.fakes.clock import leap
from tests.fakes.feeds import wide_feed
from worker.engine import EngineLoad
from worker.ledger import Capacity, Ledger
from worker.load import LoadFeed
from worker.output_lengths import OutputLengths
from worker.pace import Pace


async def test_a_process_that_stood_still_hears_of_its_engines_steps_before_it_reports() -> None:
    """Both are due when it goes on; a report that came first would show an engine that has stalled."""
    loop = asyncio.get_running_loop()

    def clock() -> float:
        return loop.time()

    figures = EngineLoad(
        free_blocks=100,
        reclaimable_blocks=0,
        running_requests=1,
        waiting_requests=0,
        preemptions=0,
        step_count=0,
        last_step_at=clock(),
        prompt_tokens_computed=0,
        output_tokens_generated=0,
    )
    capacity = Capacity(total_blocks=1_000, block_size=16, max_running_requests=10)
    ledger = Ledger(capacity, OutputLengths(quantile=0.7), wide_feed(), clock)
    pace = Pace(ledger, lambda: figures, clock)
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
