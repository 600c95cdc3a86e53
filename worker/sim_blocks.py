"""The paged KV cache of the sim engine: blocks, shared prefixes and their reclaim.

Pure bookkeeping, after vLLM's block pool: a block that no request holds keeps its content until the space is needed,
least recently used first, and a request whose prompt begins with the same content takes it over, already computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Block:
    """A block in the pool. ``content`` names what a full block holds; None while it is unknown or still growing."""

    holders: int = 0
    content: int | None = None


class OutOfBlocksError(Exception):
    """The pool has fewer free blocks than were asked for."""


class BlockPool:
    """All blocks of an engine. Every block is held, reclaimable (free, with content) or clean (free, without)."""

    def __init__(self, total_blocks: int) -> None:
        self.total_blocks = total_blocks
        self._clean = [Block() for _ in range(total_blocks)]
        self._reclaimable: OrderedDict[int, Block] = OrderedDict()  # oldest first
        self._by_content: dict[int, Block] = {}

    @property
    def free_blocks(self) -> int:
        """Blocks that no request holds, reclaimable ones included."""
        return len(self._clean) + len(self._reclaimable)

    @property
    def reclaimable_blocks(self) -> int:
        """Free blocks that hold reusable content."""
        return len(self._reclaimable)

    def find_prefix(self, names: Iterable[int]) -> list[Block]:
        """The blocks with the contents ``names``, up to the first that is missing. Takes none of them."""
        found: list[Block] = []
        for name in names:
            block = self._by_content.get(name)
            if block is None:
                break
            found.append(block)
        return found

    def can_take(self, shared: Sequence[Block], count: int) -> bool:
        """Whether ``shared`` can be held and ``count`` more blocks be had."""
        return count + sum(not block.holders for block in shared) <= self.free_blocks

    def take(self, shared: Sequence[Block], count: int) -> list[Block]:
        """Hold ``shared`` and ``count`` blocks more; returns all. Raises ``OutOfBlocksError`` and then holds none."""
        if not self.can_take(shared, count):
            raise OutOfBlocksError
        for block in shared:
            if not block.holders and block.content is not None:
                del self._reclaimable[block.content]
            block.holders += 1
        return [*shared, *(self._take_one() for _ in range(count))]

    def name(self, block: Block, content: int) -> None:
        """Say what the full ``block`` holds. Where another block holds the same, that one stays the shared one."""
        if block.content is None and content not in self._by_content:
            block.content = content
            self._by_content[content] = block

    def release(self, blocks: Sequence[Block]) -> None:
        """Let go of ``blocks``, in the order of their tokens."""
        # The end of a prompt is the least likely to be shared, so it is the first to be reclaimed.
        for block in reversed(blocks):
            block.holders -= 1
            if not block.holders:
                if block.content is None:
                    self._clean.append(block)
                else:
                    self._reclaimable[block.content] = block

    def _take_one(self) -> Block:
        if self._clean:
            block = self._clean.pop()
        else:
            content, block = self._reclaimable.popitem(last=False)
            del self._by_content[content]
            block.content = None
        block.holders = 1
        return block
