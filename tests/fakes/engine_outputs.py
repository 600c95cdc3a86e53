"""An engine's outputs one by one, for tests that look at each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from worker.engine import Engine, EngineOutput, GenerationJob, Wait


async def engine_outputs(engine: Engine, job: GenerationJob) -> AsyncGenerator[EngineOutput]:
    """Each is taken when it is asked for; until then what follows merges. Closing the generator cancels the job."""
    taken: asyncio.Queue[tuple[EngineOutput, asyncio.Event]] = asyncio.Queue()

    def take(output: EngineOutput) -> Wait:
        is_wanted = asyncio.Event()
        taken.put_nowait((output, is_wanted))

        async def wait() -> None:
            await is_wanted.wait()

        return wait

    generating = asyncio.create_task(engine.generate(job, take))
    try:
        while True:
            getting = asyncio.create_task(taken.get())
            await asyncio.wait((getting, generating), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                await generating
                return
            output, is_wanted = getting.result()
            yield output
            is_wanted.set()
    finally:
        generating.cancel()
        await asyncio.wait((generating,))
