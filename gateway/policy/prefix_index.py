"""Guesses how much of a prompt a worker still holds in its KV cache, from what this gateway has sent there.

The worker alone knows. An index is an estimate: other gateways send prompts, too, and the worker gives up what it needs
the space for. So each answer's count of cached tokens is compared with what was promised, and the promises of a worker
that does not keep them count for less.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

# Weight of the latest answer in the trust, and where trust begins: a worker has to be given the chance to prove it.
_TRUST_GAIN = 0.1
_FIRST_TRUST = 1.0


class PrefixIndex:
    """The prefixes sent to one worker, the least recently used forgotten first.

    Names come as ``Demand.prefix`` has them: each one stands for all tokens before, too. Since a prefix is never older
    than a longer one, what is held of a prompt is found by halving.
    """

    def __init__(self, max_entries: int) -> None:
        """``max_entries``: a worker cannot hold more prefixes than its pool has room for."""
        if max_entries < 0:
            raise ValueError("max_entries is at least 0")
        self.max_entries = max_entries
        self.trust = _FIRST_TRUST  # share of the promised tokens that came out of the cache, of late
        self._names: OrderedDict[int, None] = OrderedDict()  # oldest first

    def __len__(self) -> int:
        return len(self._names)

    def __bool__(self) -> bool:
        """Whether any name is held."""
        return bool(self._names)

    def held(self, prefix: Sequence[int]) -> int:
        """How many of the names in ``prefix`` are held."""
        low, high = 0, len(prefix)
        while low < high:
            middle = (low + high + 1) // 2
            if prefix[middle - 1] in self._names:
                low = middle
            else:
                high = middle - 1
        return low

    def send(self, prefix: Sequence[int]) -> None:
        """A prompt that begins with ``prefix`` goes to the worker, and will be held there."""
        for name in reversed(prefix[: self.max_entries]):  # the shortest last, so that it is forgotten last
            self._names[name] = None
            self._names.move_to_end(name)
        while len(self._names) > self.max_entries:
            self._names.popitem(last=False)

    def confirm(self, *, promised_tokens: int, cached_tokens: int) -> None:
        """Of a prompt of which ``promised_tokens`` were thought to be held, so many were. By now all of it is held."""
        if promised_tokens > 0:
            kept = min(1.0, cached_tokens / promised_tokens)
            self.trust += _TRUST_GAIN * (kept - self.trust)
