"""From an engine's step to whoever takes a generation's outputs, in one call: no queue and no task in between.

A token would otherwise wake a task of its own, which costs more than all that is done with it.
"""

from __future__ import annotations

import asyncio

from worker.engine import EngineOutput, TakeOutput, Wait


class OutputPort:
    """One generation's. Engines ``put``, and the generation's task sleeps in ``run`` until it is over.

    A taker that lags is waited for in ``run``; what comes meanwhile merges into one output.
    """

    __slots__ = ("_error", "_is_over", "_lag", "_merged", "_take", "_waiter")

    def __init__(self, take: TakeOutput) -> None:
        """See ``worker.engine.Engine.generate`` for ``take``."""
        self._take = take
        self._lag: Wait | None = None
        self._merged: EngineOutput | None = None
        self._error: Exception | None = None
        self._is_over = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, output: EngineOutput) -> None:
        """The engine's next output. Raises nothing: what is wrong with one generation must not end an engine's step."""
        if self._lag is None:
            self._give(output)
        else:
            self._merged = output if self._merged is None else self._merged.merged(output)

    def fail(self, error: Exception) -> None:
        """There will be no more outputs, and this is why. Nothing changes when all was taken before."""
        if not self._is_over:
            self._is_over = True
            self._error = error
            self._wake()

    async def run(self) -> None:
        """Until the last output was taken. Raises what ``fail`` was given, and what the taker raised."""
        while True:
            if self._error is not None:
                raise self._error
            if self._lag is not None:
                await self._lag()
                self._lag = None
                merged, self._merged = self._merged, None
                if merged is not None:
                    self._give(merged)
            elif self._is_over:
                return
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

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
