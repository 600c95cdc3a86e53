"""A way for the sim engine to fail on demand, as a real one does on a request that it should have refused."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worker.sim_language import SimLanguage


class SimFaultError(Exception):
    """What the engine dies of."""


@dataclass(frozen=True, slots=True)
class SimFault:
    """Strikes at the first step for a prompt with ``text`` in it, once ``after_tokens`` of its output are there."""

    text: str
    kind: Literal["die", "kill", "hang"]
    after_tokens: int = 0

    def is_in(self, prompt_token_ids: Sequence[int], language: SimLanguage) -> bool:
        """Whether a prompt has it."""
        return self.text in "".join(language.text(token_id) for token_id in prompt_token_ids)

    async def strike(self) -> None:
        """Does not return."""
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "hang":
            await asyncio.Event().wait()
        raise SimFaultError(f"a prompt had {self.text!r} in it")
