"""Which beginnings of prompts are worth having in the prefix cache before somebody asks for them. Pure.

Every block-aligned prefix of every prompt is counted, by name (``worker.prefix``). The longest one that comes often
enough is hot; of the hot ones those are kept that save most prompt tokens, as far as their share of the pool goes.

An engine does not tell when it reclaims a block. But it reclaims the least recently used first: a prefix that nobody
touched while other requests filled half of the pool may be gone soon, or is gone already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.frequent import Frequent
from worker.prefix import shareable_names

_COUNTERS = 16_384
_HALF_LIFE_PROMPTS = 2_000
_HOT_COUNT = 4
_MIN_TOKENS = 128
_MAX_KEPT = 64
_TOUCH_AFTER_SHARE = 0.5  # of the pool


@dataclass(slots=True, eq=False, kw_only=True)
class HotPrefix:
    """A prefix to keep. ``token_ids`` are its full blocks, and one token more, since one is always computed."""

    token_ids: Sequence[int]
    names: Sequence[int]
    is_given: bool  # by an operator, and so kept however often it comes
    touched_at_blocks: int | None = None  # ``blocks_filled`` when it was last seen in the cache; None: never


class HotPrefixes:
    """Told of every prompt; asked, when there is time, what to compute."""

    def __init__(self, *, block_size: int, total_blocks: int, max_blocks: int) -> None:
        """``max_blocks`` of the engine's ``total_blocks`` may be taken by prefixes."""
        self._block_size = block_size
        self._total_blocks = total_blocks
        self._max_blocks = max_blocks
        self._min_blocks = -(-_MIN_TOKENS // block_size)
        self._frequent = Frequent(size=_COUNTERS, half_life=_HALF_LIFE_PROMPTS)
        self._kept: dict[int, HotPrefix] = {}  # by the name of the last block

    @property
    def kept(self) -> list[HotPrefix]:
        """The prefixes to keep."""
        return list(self._kept.values())

    def give(self, token_ids: Sequence[int]) -> None:
        """Keep the full blocks of ``token_ids``, whatever comes. Raises ``ValueError`` where there is no room."""
        # A name stands for a block only if a token follows it.
        prefix = self._prefix(token_ids[: len(token_ids) - len(token_ids) % self._block_size], is_given=True)
        if prefix is None:
            raise ValueError(f"a prefix of {len(token_ids)} tokens is shorter than {self._min_blocks} blocks")
        if self._kept_blocks() + len(prefix.names) > self._max_blocks:
            raise ValueError(f"the prefixes take more than {self._max_blocks} blocks")
        self._kept[prefix.names[-1]] = prefix

    def note(self, token_ids: Sequence[int], names: Sequence[int], *, blocks_filled: int) -> None:
        """A prompt has been computed; ``names`` are its blocks', ``blocks_filled`` all that the engine ever filled."""
        self._frequent.add(names)
        depth = len(names)
        while depth and self._frequent.count(names[depth - 1]) < _HOT_COUNT:
            depth -= 1
        if depth >= self._min_blocks and names[depth - 1] not in self._kept:
            self._keep(token_ids[: depth * self._block_size])
        for name in names:
            if name in self._kept:
                self._kept[name].touched_at_blocks = blocks_filled

    def due(self, *, blocks_filled: int) -> list[HotPrefix]:
        """The prefixes that should be touched, or computed again, when there is time."""
        # What nobody has asked for in a long time is dropped.
        for name, prefix in list(self._kept.items()):
            if not prefix.is_given and not self._frequent.count(name):
                del self._kept[name]
        patience = self._total_blocks * _TOUCH_AFTER_SHARE
        return [
            prefix
            for prefix in self._kept.values()
            if prefix.touched_at_blocks is None or blocks_filled - prefix.touched_at_blocks > patience
        ]

    def _keep(self, token_ids: Sequence[int]) -> None:
        prefix = self._prefix(token_ids, is_given=False)
        if prefix is None:
            return
        # A shorter one is part of the longer one, and a longer one that was given is enough.
        for name in prefix.names:
            if name in self._kept and not self._kept[name].is_given:
                del self._kept[name]
        self._kept[prefix.names[-1]] = prefix
        while len(self._kept) > _MAX_KEPT or self._kept_blocks() > self._max_blocks:
            learned = [other for other in self._kept.values() if not other.is_given]
            if not learned:
                return
            del self._kept[min(learned, key=self._saved_tokens).names[-1]]

    def _prefix(self, token_ids: Sequence[int], *, is_given: bool) -> HotPrefix | None:
        with_next = [*token_ids, token_ids[0]] if token_ids else []
        names = shareable_names(with_next, self._block_size)
        if len(names) < self._min_blocks:
            return None
        return HotPrefix(token_ids=with_next, names=names, is_given=is_given)

    def _saved_tokens(self, prefix: HotPrefix) -> int:
        return self._frequent.count(prefix.names[-1]) * len(prefix.names)

    def _kept_blocks(self) -> int:
        return len({name for prefix in self._kept.values() for name in prefix.names})
