"""A request that waits for a worker, as far as its order in the queue goes."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.demand import Fit
from gateway.policy.heirs import mypyc_attr

CLASS_COUNT = 4
# Deadlines as far away as this make no request more urgent than another one. On the wire they are rounded, those of
# minutes to seconds: by their order alone, of two requests that wait a second either would go first.
_FAR_S = 10.0


@mypyc_attr(allow_interpreted_subclasses=True)  # in simulations, whose requests know more
@dataclass(slots=True, eq=False, kw_only=True, init=False)
class Waiter:
    """One request. ``rank`` is its criticality: 0 is served first, ``CLASS_COUNT`` - 1 is shed first.

    ``tokens`` are those that it is expected to hold in a KV cache: its ``prompt_tokens`` and the expected output. Times
    are by the clock of whoever drives the queue: ``leaves_at`` is when waiting is of no use, ``deadline_at`` when its
    client gives up. ``headroom_tokens`` have to stay free beside it for others, which hold ``mean_tokens`` on average;
    ``prefill_line_tokens`` bound the prompts that may wait at its worker (``demand.Fit``); ``is_above_share``: its
    tenant holds more than its share, or asks for more. These, ``number`` and ``is_waiting`` are the queue's.
    """

    tenant: str
    rank: int
    tokens: int
    prompt_tokens: int
    size_bytes: int
    arrived_at: float
    deadline_at: float
    leaves_at: float
    headroom_tokens: int = 0
    mean_tokens: int = 0
    prefill_line_tokens: int | None = None
    is_above_share: bool = False
    number: int = -1
    is_waiting: bool = False

    def __init__(  # noqa: PLR0913 - its fields, but those that are the queue's
        self,
        *,
        tenant: str,
        rank: int,
        tokens: int,
        prompt_tokens: int,
        size_bytes: int,
        arrived_at: float,
        deadline_at: float,
        leaves_at: float,
        headroom_tokens: int = 0,
        mean_tokens: int = 0,
        prefill_line_tokens: int | None = None,
        is_above_share: bool = False,
        number: int = -1,
        is_waiting: bool = False,
    ) -> None:
        self.tenant = tenant
        self.rank = rank
        self.tokens = tokens
        self.prompt_tokens = prompt_tokens
        self.size_bytes = size_bytes
        self.arrived_at = arrived_at
        self.deadline_at = deadline_at
        self.leaves_at = leaves_at
        self.headroom_tokens = headroom_tokens
        self.mean_tokens = mean_tokens
        self.prefill_line_tokens = prefill_line_tokens
        self.is_above_share = is_above_share
        self.number = number
        self.is_waiting = is_waiting
        self.__post_init__()

    def __post_init__(self) -> None:
        """Refuse what has no place in a queue."""
        if not 0 <= self.rank < CLASS_COUNT or self.tokens < 1 or min(self.prompt_tokens, self.size_bytes) < 0:
            raise ValueError(f"rank {self.rank}, {self.tokens} tokens, {self.size_bytes} bytes")

    @property
    def fit(self) -> Fit:
        """What it has to find on a worker."""
        return Fit(
            expected_tokens=self.tokens,
            spare_tokens=self.headroom_tokens,
            mean_tokens=self.mean_tokens,
            prefill_line_tokens=self.prefill_line_tokens,
        )

    @property
    def due_at(self) -> float:
        """By what its tenant's requests are in order: its deadline, or its arrival where that is far away."""
        return min(self.deadline_at, self.arrived_at + _FAR_S)
