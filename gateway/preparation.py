"""Renders and tokenises off the event loop, and refuses prompts when too much of that work is waiting."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gateway.errors import AdmissionQueueFullError, DeadlineExceededError
from gateway.policy.limit import Limit
from gateway.prompt import Prompt, prepare
from gateway.request import ValidRequest, ValidTokenizeRequest


class Preparation:
    """A few threads with a bounded backlog, counted in bytes: what a prompt costs is known before any work is done."""

    def __init__(self, executor: ThreadPoolExecutor, backlog_bytes: Limit) -> None:
        self._executor = executor
        self._backlog_bytes = backlog_bytes

    async def prepare(
        self, request: ValidRequest | ValidTokenizeRequest, *, size_bytes: int, deadline_at: float
    ) -> Prompt:
        """The prompt of ``request``, whose message had ``size_bytes``. ``deadline_at`` is by the event loop's clock.

        Raises ``AdmissionQueueFullError``, ``DeadlineExceededError`` and what ``gateway.prompt.prepare`` raises.
        """
        if not self._backlog_bytes.can_take(size_bytes):
            raise AdmissionQueueFullError(
                f"{self._backlog_bytes.in_use} bytes of prompts wait to be tokenised",
                metadata={"waiting_bytes": str(self._backlog_bytes.in_use)},
                retry_after_s=self._backlog_bytes.retry_after_s(),
            )
        self._backlog_bytes.take(size_bytes)
        loop = asyncio.get_running_loop()
        work = self._executor.submit(prepare, request)
        # The bytes count until a thread is done with them, whether or not somebody still waits for the result.
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._backlog_bytes.give_back, size_bytes))
        try:
            async with asyncio.timeout_at(deadline_at):
                return await asyncio.wrap_future(work)
        except TimeoutError:
            raise DeadlineExceededError("the deadline passed before the prompt was tokenised") from None
