"""Judges client histories. The sim engine's tokens are f(seed, position), so that every token can be foretold."""

from __future__ import annotations

from collections.abc import Iterator

from tests.reliability.history import History
from worker.sim_language import SimLanguage

_ONCE = ("started", "finished")


class Checker:
    """Knows what each seed has to say. Times and numbers of a run are not judged here, only truth."""

    def __init__(self, language: SimLanguage) -> None:
        self._language = language

    def faults(self, history: History) -> Iterator[str]:
        """What is wrong with ``history``; an error that says what it is, is not wrong."""
        if 1 != len(history.reasons) or "ENDED_WITHOUT_FINISHED" in history.reasons:
            yield f"ends: {history.reasons}"
        if history.events and "started" != history.events[0]:
            yield f"begins with {history.events[0]}"
        for kind in _ONCE:
            if history.events.count(kind) > 1:
                yield f"{history.events.count(kind)} times {kind}"
        if "finished" in history.events[:-1]:
            yield "goes on behind its end"
        expected = [
            self._language.token(history.seed, history.prompt_tokens + index) for index in range(history.wanted_tokens)
        ]
        if expected[: len(history.token_ids)] != history.token_ids:
            at = next(
                (i for i, pair in enumerate(zip(expected, history.token_ids, strict=False)) if len(set(pair)) > 1), -1
            )
            yield f"token {at} of {len(history.token_ids)} is wrong"
        if "".join(map(self._language.text, history.token_ids)) != history.text:
            yield "its text is not that of its tokens"
        if history.is_finished:
            yield from self._bill(history)

    def _bill(self, history: History) -> Iterator[str]:
        if len(history.token_ids) != history.wanted_tokens:
            yield f"{len(history.token_ids)} of {history.wanted_tokens} tokens"
        billed = (history.billed_prompt_tokens, history.billed_output_tokens)
        if (history.prompt_tokens, len(history.token_ids)) != billed:
            yield f"bills {billed} for {history.prompt_tokens} and {len(history.token_ids)} tokens"
