from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from worker.prefix import content_names
from worker.sim_blocks import Block, BlockPool, OutOfBlocksError

_TOTAL = 12
_BLOCK_SIZE = 2


class BlockPoolMachine(RuleBasedStateMachine):
    """Holders take, fill and release blocks with a few prompts that share beginnings."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(_TOTAL)
        self.holders: list[list[Block]] = []

    @rule(target=held, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12), fills=st.booleans())
    def take(self, tokens: list[int], *, fills: bool) -> list[Block]:
        """A prompt takes over what is known of it, and new blocks for the rest; or nothing."""
        names = content_names(tokens, _BLOCK_SIZE)
        shared = self.pool.find_prefix(names)
        assert [block.content for block in shared] == names[: len(shared)]
        free = self.pool.free_blocks
        needed = -(-len(tokens) // _BLOCK_SIZE) - len(shared)
        try:
            blocks = self.pool.take(shared, needed)
        except OutOfBlocksError:
            assert free == self.pool.free_blocks
            return []
        if fills:
            for block, name in zip(blocks, names, strict=False):
                self.pool.name(block, name)
        self.holders.append(blocks)
        return blocks

    @rule(blocks=consumes(held))
    def release(self, blocks: list[Block]) -> None:
        """The holder lets go."""
        if blocks:
            self.pool.release(blocks)
            self.holders = [other for other in self.holders if other is not blocks]

    @invariant()
    def every_block_is_held_or_free(self) -> None:
        """Blocks in use and free blocks add up to the pool."""
        in_use = {id(block) for blocks in self.holders for block in blocks}
        assert _TOTAL == len(in_use) + self.pool.free_blocks
        assert 0 <= self.pool.reclaimable_blocks <= self.pool.free_blocks

    @invariant()
    def holders_are_counted(self) -> None:
        """A shared block knows how many hold it."""
        for blocks in self.holders:
            for block in blocks:
                assert block.holders == sum(block in other for other in self.holders)

    def teardown(self) -> None:
        """When all have let go the pool is whole."""
        for blocks in self.holders:
            self.pool.release(blocks)
        assert _TOTAL == self.pool.free_blocks


TestBlockPool = BlockPoolMachine.TestCase
