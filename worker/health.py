"""Whether the worker takes calls. It believes its engine's steps, not that a process or a thread is alive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tidegate.rpc.lifecycle import Lifecycle
from worker.engine import EngineDeadError
from worker.errors import NotServingError
from worker.model import ServedModel
from worker.pace import Pace

_LOGGER = logging.getLogger(__name__)

_CHECK_INTERVAL_S = 0.5


def is_stalled(pace: Pace, *, pending_prefill_tokens: int, stall_after_s: float) -> bool:
    """Whether the engine owes a step for too long.

    One step may compute all that is pending, so the time which that takes at the measured rate is added to the limit: a
    busy engine must not be taken for a hung one.
    """
    rate = pace.prefill_tokens_per_s
    prefill_s = pending_prefill_tokens / rate if rate else 0.0
    return pace.step_age_s > stall_after_s + prefill_s


class Health:
    """Starting, then serving, stalled at times, and perhaps dead in the end. Draining is known to ``Lifecycle``."""

    def __init__(self, lifecycle: Lifecycle, *, stall_after_s: float, on_death: Callable[[], None]) -> None:
        """``on_death`` is called once, when the engine turns out to be gone."""
        self._lifecycle = lifecycle
        self._stall_after_s = stall_after_s
        self._on_death = on_death
        self._model: ServedModel | None = None
        self._is_stalled = False
        self._is_dead = False

    def loaded_model(self) -> ServedModel:
        """The model, for calls that only ask about it. Raises ``NotServingError`` while there is none."""
        if self._model is None:
            raise NotServingError("the engine is starting")
        return self._model

    def serving_model(self) -> ServedModel:
        """The model, for a new generation. Raises ``NotServingError`` or ``EngineDeadError``."""
        model = self.loaded_model()
        if self._is_dead:
            raise EngineDeadError("the engine is dead")
        if self._lifecycle.is_draining:
            raise NotServingError("the worker is shutting down")
        if self._is_stalled:
            raise NotServingError("the engine has work and makes no progress")
        return model

    async def serve(self, model: ServedModel) -> None:
        """Take calls from now on, and watch the engine until cancelled."""
        self._model = model
        await self._lifecycle.set_ready(True)
        while True:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            await self._check(model)

    def declare_dead(self, cause: EngineDeadError) -> None:
        """The engine is gone. Later calls change nothing."""
        if not self._is_dead:
            self._is_dead = True
            _LOGGER.error("the engine is dead: %s", cause)
            self._on_death()

    async def _check(self, model: ServedModel) -> None:
        try:
            stalled = is_stalled(
                model.pace,
                pending_prefill_tokens=model.ledger.pending_prefill_tokens,
                stall_after_s=self._stall_after_s,
            )
        except EngineDeadError as error:
            self.declare_dead(error)
            return
        if stalled != self._is_stalled:
            self._is_stalled = stalled
            _LOGGER.warning("the engine %s", "makes no progress" if stalled else "makes progress again")
            await self._lifecycle.set_ready(not stalled)
