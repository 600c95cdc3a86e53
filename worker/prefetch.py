"""Prefills hot prefixes when the engine has nothing else to do: before the worker is ready, and in its pauses.

It is never in the way. A prefix is computed in pieces, each a short job of its own, and before each one the ledger is
asked whether anybody is there: who comes meanwhile waits for one piece at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count

from worker.engine import Engine, EngineDeadError, EngineError, EngineFacts, GenerationJob, Sampling
from worker.hot_prefixes import HotPrefix, HotPrefixes
from worker.ledger import Ledger

_LOGGER = logging.getLogger(__name__)

_PIECE_TOKENS = 1_024
_PAUSE_S = 0.25  # of the ledger, before the engine counts as idle


class Prefetcher:
    """One engine's."""

    def __init__(
        self,
        engine: Engine,
        facts: EngineFacts,
        ledger: Ledger,
        prefixes: HotPrefixes,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.prefixes = prefixes
        self._engine = engine
        self._ledger = ledger
        self._sleep = sleep
        # A whole number of blocks, so that no piece computes what the one before it has.
        self._piece_tokens = max(1, min(_PIECE_TOKENS, facts.max_batched_tokens) // facts.block_size) * facts.block_size
        self._block_size = facts.block_size
        self._job_numbers = count(1)

    @property
    def blocks_filled(self) -> int:
        """Blocks that the engine has filled since its start."""
        load = self._engine.load()
        return (load.prompt_tokens_computed + load.output_tokens_generated) // self._block_size

    def note(self, token_ids: Sequence[int], names: Sequence[int]) -> None:
        """A prompt has been computed; see ``HotPrefixes.note``."""
        self.prefixes.note(token_ids, names, blocks_filled=self.blocks_filled)

    async def prefill_all(self) -> None:
        """Compute all prefixes that are due, whoever waits. Raises what the engine raises."""
        await self._prefill_due(lambda: True)

    async def run(self) -> None:
        """Compute what is due in each pause, until cancelled or until the engine is gone."""
        while True:
            admissions = self._ledger.admissions
            await self._sleep(_PAUSE_S)
            try:
                if self._is_idle_since(admissions):
                    await self._prefill_due(partial(self._is_idle_since, admissions))
            except EngineDeadError:  # which others notice, and tell
                return

    async def _prefill_due(self, may_go_on: Callable[[], bool]) -> None:
        for prefix in self.prefixes.due(blocks_filled=self.blocks_filled):
            if not await self._prefill(prefix, may_go_on):
                return

    def _is_idle_since(self, admissions: int) -> bool:
        return not self._ledger.requests and self._ledger.admissions == admissions

    async def _prefill(self, prefix: HotPrefix, may_go_on: Callable[[], bool]) -> bool:
        """Whether it came to its end."""
        tokens = len(prefix.token_ids)
        for end in [*range(self._piece_tokens + 1, tokens, self._piece_tokens), tokens]:
            if not may_go_on():
                return False
            job = GenerationJob(
                job_id=f"prefetch-{next(self._job_numbers)}",
                prompt_token_ids=prefix.token_ids[:end],
                sampling=Sampling(max_output_tokens=1, temperature=0.0),
            )
            try:
                await self._engine.generate(job, lambda _: None)
            except EngineError as error:  # it concerns this prefix alone
                _LOGGER.warning("cannot prefill a prefix of %d tokens: %s", tokens, error)
                break
        prefix.touched_at_blocks = self.blocks_filled
        return True
