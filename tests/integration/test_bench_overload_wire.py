from __future__ import annotations

import time
from contextlib import AsyncExitStack

from bench.overload.trace import Arrival
from bench.overload.wire_client import Errand, send
from tests.fakes.running_gateway import running_gateway
from tests.fakes.running_worker import running_worker

_LENGTHS = (1, 17, 300)


async def test_outputs_are_as_long_as_the_trace_says(stack: AsyncExitStack) -> None:
    """Though each request asks for 1,024 tokens."""
    worker = await stack.enter_async_context(running_worker())
    gateway = await stack.enter_async_context(running_gateway(worker.worker.address))
    arrivals = (Arrival(arrival_s=0.0, prompt_tokens=10, output_tokens=length) for length in _LENGTHS)
    errand = Errand(
        target=gateway.gateway.address,
        arrivals=tuple(enumerate(arrivals)),
        starts_at=time.time(),
        time_scale=1.0,
        prompts="test",
    )

    answers = [answer for _, answer in await send(errand)]

    assert [(length, True, "") for length in _LENGTHS] == [
        (answer.output_tokens, answer.is_complete, answer.failure) for answer in answers
    ]
