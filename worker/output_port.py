"""From an engine's step to whoever takes a generation's outputs, in one call: no queue and no task in between.

A token would otherwise wake a task of its own, which costs more than all that is done with it. And what is held for a
reader that lags is bounded here: engines do not wait for readers.
"""

from __future__ import annotations

import asyncio

from worker.engine import EngineOutput, TakeOutput, Wait

# What a token, a character and a log probability take at most of this process's memory.
_TOKEN_BYTES, _CHARACTER_BYTES, _LOGPROB_BYTES = 40, 4, 250
_MAX_HELD_BYTES = 2**17


class ReaderBehindError(Exception):
    """The reader lags so far behind that no more can be held for it."""


class OutputPort:
    """One generation's. Engines ``put``, and the generation's task sleeps in ``run`` until it is over.

    A taker that lags is waited for in ``run``; what comes meanwhile merges into one output.
    """

    __slots__ = ("_error", "_held_bytes", "_is_over", "_lag", "_max_held_bytes", "_merged", "_take", "_waiter")

    def __init__(self, take: TakeOutput, *, max_held_bytes: int = _MAX_HELD_BYTES) -> None:
        """See ``worker.engine.Engine.generate`` for ``take``."""
        self._take = take
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0  # of ``_merged``
        self._lag: Wait | None = None
        self._merged: EngineOutput | None = None
        self._error: Exception | None = None
        self._is_over = False
        self._waiter: asyncio.Future[None] | None = None  # of ``run``

    def put(self, output: EngineOutput) -> None:
        """The engine's next output. Raises nothing: what is wrong with one generation must not end an engine's step."""
        if self._lag is None:
            self._give(output)
        elif not self._is_over:
            self._hold(output)

    def fail(self, error: Exception) -> None:
        """There will be no more outputs, and this is why. Nothing changes when all was taken before."""
        if not self._is_over:
            self._is_over = True
            self._error = error
            self._merged = None
            self._wake()

    async def run(self) -> None:
        """Until the last output was taken.

        Raises what ``fail`` was given, what the taker raised, and ``ReaderBehindError``.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._lag is not None:
                await self._catch_up(self._lag)
            elif self._is_over:
                return
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    async def _catch_up(self, lag: Wait) -> None:
        """Wait for the reader, or for a failure."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        lagging = asyncio.ensure_future(lag())
        try:
            await asyncio.wait((lagging, waiter), return_when=asyncio.FIRST_COMPLETED)
        finally:
            lagging.cancel()
        if self._error is None:
            await lagging
            self._lag = None
            merged, self._merged, self._held_bytes = self._merged, None, 0
            if merged is not None:
                self._give(merged)

    def _hold(self, output: EngineOutput) -> None:
        logprobs = (*output.logprobs, *output.prompt_logprobs)
        self._held_bytes += (
            _TOKEN_BYTES * len(output.token_ids)
            + _CHARACTER_BYTES * len(output.text)
            + _LOGPROB_BYTES * sum(1 + len(logprob.top) for logprob in logprobs)
        )
        self._merged = output if self._merged is None else self._merged.merged(output)
        if self._held_bytes > self._max_held_bytes:
            tokens = len(self._merged.token_ids)
            self.fail(ReaderBehindError(f"{tokens} tokens wait for a reader that has taken none of them"))

    def _give(self, output: EngineOutput) -> None:
        if self._is_over:
            return
        try:
            lag = self._take(output)
        except Exception as error:  # noqa: BLE001 - it belongs to the generation's task
            self.fail(error)
            return
        if output.finish is not None:
            self._is_over = True
        self._lag = lag
        if lag is not None or self._is_over:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
