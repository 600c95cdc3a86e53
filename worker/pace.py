"""The engine's measured pace: how fast it works when it has work, and how long ago it last made a step. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from worker.engine import EngineLoad
from worker.ledger import Ledger
from worker.prefill_fit import PrefillFit

_TIME_CONSTANT_S = 5.0


class _BusyRate:
    """Amount per second of work, the last ``_TIME_CONSTANT_S`` of work weighing most."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._seconds = 0.0

    @property
    def per_s(self) -> float:
        return self._amount / self._seconds if self._seconds else 0.0

    def add(self, amount: float, seconds: float) -> None:
        decay = math.exp(-seconds / _TIME_CONSTANT_S)
        self._amount = self._amount * decay + amount
        self._seconds = self._seconds * decay + seconds


class Pace:
    """Told of each request that the engine is given, and of each of its steps."""

    def __init__(
        self,
        ledger: Ledger,
        engine_load: Callable[[], EngineLoad],
        clock: Callable[[], float] = time.monotonic,
        *,
        full_step_tokens: int = 2_048,
    ) -> None:
        """The times in an ``EngineLoad`` are those of ``clock``; ``full_step_tokens`` are the most of a step."""
        self._ledger = ledger
        self._engine_load = engine_load
        self._clock = clock
        self._counted = engine_load()
        self._step_began_at = clock()
        self._is_prefilling = False
        self._prefill = PrefillFit(full_step_tokens)
        self._prefill_steps, self._prefill_s = 0, 0.0  # since prompt tokens were last counted
        self._decode = _BusyRate()

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens per second while there are plenty to compute."""
        return self._prefill.tokens_per_s

    @property
    def decode_tokens_per_s(self) -> float:
        """Output tokens per second of the whole batch."""
        return self._decode.per_s

    @property
    def has_work(self) -> bool:
        """Whether the engine owes a step. A stream that is complete in the engine, but not yet read, is none."""
        load = self._engine_load()
        return self._ledger.requests > 0 and bool(
            load.running_requests or load.waiting_requests or self._ledger.pending_prefill_tokens
        )

    @property
    def step_age_s(self) -> float:
        """For how long the engine has had work without completing a step; 0 when it has none."""
        return max(0.0, self._clock() - self._step_began_at) if self.has_work else 0.0

    def give_work(self, *, had_work: bool) -> None:
        """The engine is given a request. ``had_work`` is what ``has_work`` said before the ledger admitted it."""
        if not had_work:
            self._step_began_at = self._clock()
        self._is_prefilling = True

    def after_step(self) -> None:
        """The engine has completed a step."""
        load, before = self._engine_load(), self._counted
        seconds = max(0.0, load.last_step_at - self._step_began_at)
        # An engine may count a prompt when its last chunk is done; the seconds of the chunks before belong to it too.
        if self._is_prefilling:
            self._prefill_steps += load.step_count - before.step_count
            self._prefill_s += seconds
        tokens = load.prompt_tokens_computed - before.prompt_tokens_computed
        if tokens or not self._ledger.pending_prefill_tokens:
            self._prefill.add(tokens, steps=max(1, self._prefill_steps), seconds=self._prefill_s)
            self._prefill_steps, self._prefill_s = 0, 0.0
        self._decode.add(load.output_tokens_generated - before.output_tokens_generated, seconds)
        self._counted = load
        self._step_began_at = load.last_step_at
        self._is_prefilling = self._ledger.pending_prefill_tokens > 0
