"""What a peer may ask for and how often: bounds, budgets, and the names of their violations.

HTTP/2 lets a peer cause work with frames that cost it nothing (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316,
CVE-2025-8671). Every such frame is paid from a token bucket here; an empty bucket ends the connection with
ENHANCE_YOUR_CALM. Well-behaved clients never come near the defaults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

DEFAULT_WINDOW_BYTES: Final = 65_535  # RFC 9113, section 6.9.2


class Abuse(Enum):
    """A limit that a peer broke; the value is its label in metrics."""

    RAPID_RESET = "rapid_reset"
    CONTINUATION_FLOOD = "continuation_flood"
    PING_FLOOD = "ping_flood"
    SETTINGS_FLOOD = "settings_flood"
    EMPTY_FRAME_FLOOD = "empty_frame_flood"
    WINDOW_UPDATE_FLOOD = "window_update_flood"
    IGNORED_FRAME_FLOOD = "ignored_frame_flood"
    SLOW_PREFACE = "slow_preface"
    SLOW_HEADERS = "slow_headers"
    OVERSIZE_FRAME = "oversize_frame"
    OVERSIZE_HEADER_LIST = "oversize_header_list"
    TOO_MANY_STREAMS = "too_many_streams"
    UNREAD_REPLIES = "unread_replies"


AbuseTally = Counter[Abuse]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """A token bucket's size, and how many tokens it gets back per second."""

    burst: int
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection. Sizes in bytes, times in seconds."""

    max_concurrent_streams: int = 10_000
    # What a stream may hold of the peer's data before its reader takes it. RFC 9113's default is the least: the peer
    # may use that much before it has read our SETTINGS.
    stream_window_bytes: int = DEFAULT_WINDOW_BYTES
    # Never the bottleneck: it is given back on receipt, while a stream's window is given back on use.
    connection_window_bytes: int = 16 * 2**20
    max_message_bytes: int = 4 * 2**20
    # Above it a request is refused with a status; above the block and list bounds the connection ends.
    max_header_list_bytes: int = 16 * 2**10
    max_header_block_bytes: int = 32 * 2**10
    max_continuations: int = 16
    # Output that the peer has not read, DATA excluded since it waits in its stream. All streams may end at once, with
    # some hundred bytes for each; of more than the second bound, a part has to be read within seconds.
    max_unread_bytes: int = 8 * 2**20
    max_unread_bytes_at_rest: int = 2**20
    # How long a peer may take nothing of an answer that is complete; None for ever.
    unread_timeout_s: float | None = 60.0
    preface_timeout_s: float = 10.0
    header_timeout_s: float = 10.0
    keepalive_s: float = 20.0
    keepalive_timeout_s: float = 10.0
    # A client that cancels everything it has open is honest; one that goes on opening and cancelling is not.
    resets: Allowance = Allowance(burst=2_000, per_s=200.0)
    # Without any DATA from us since the one before.
    pings: Allowance = Allowance(burst=500, per_s=50.0)
    settings: Allowance = Allowance(burst=20, per_s=1.0)
    empty_frames: Allowance = Allowance(burst=100, per_s=10.0)
    # Beyond some for every DATA frame that we send.
    spare_window_updates: int = 10_000
    ignored_frames: Allowance = Allowance(burst=1_000, per_s=50.0)
    refusals: Allowance = Allowance(burst=10_000, per_s=200.0)
    oversize_lists: Allowance = Allowance(burst=20, per_s=1.0)

    def __post_init__(self) -> None:
        """Refuse windows that would find fault with honest peers."""
        if min(self.stream_window_bytes, self.connection_window_bytes) < DEFAULT_WINDOW_BYTES:
            raise ValueError(f"windows are at least {DEFAULT_WINDOW_BYTES} bytes")

    @property
    def max_decoded_header_bytes(self) -> int:
        """Bound of a decoded header list, past which HPACK's state is given up and the connection with it."""
        return 2 * self.max_header_list_bytes


class Budget:
    """A token bucket."""

    __slots__ = ("_allowance", "_at_s", "_clock", "_tokens")

    def __init__(self, allowance: Allowance, clock: Callable[[], float]) -> None:
        """Starts full; ``clock`` gives seconds."""
        self._allowance = allowance
        self._clock = clock
        self._tokens = float(allowance.burst)
        self._at_s = clock()

    def spend(self) -> bool:
        """Take one token; False when there is none."""
        if self._tokens < 1:  # refilled only when empty: most spending then needs no clock
            now_s = self._clock()
            gained = (now_s - self._at_s) * self._allowance.per_s
            self._tokens = min(self._allowance.burst, self._tokens + gained)
            self._at_s = now_s
            if self._tokens < 1:
                return False
        self._tokens -= 1
        return True


class Budgets:
    """The budgets of one connection, by the abuse that overspending them is. Made on first use: most never are."""

    __slots__ = ("_allowances", "_budgets", "_clock")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        """Buckets start full."""
        self._clock = clock
        self._budgets: dict[Abuse, Budget] = {}
        self._allowances = {
            Abuse.RAPID_RESET: limits.resets,
            Abuse.PING_FLOOD: limits.pings,
            Abuse.SETTINGS_FLOOD: limits.settings,
            Abuse.EMPTY_FRAME_FLOOD: limits.empty_frames,
            Abuse.IGNORED_FRAME_FLOOD: limits.ignored_frames,
            Abuse.TOO_MANY_STREAMS: limits.refusals,
            Abuse.OVERSIZE_HEADER_LIST: limits.oversize_lists,
        }

    def spend(self, abuse: Abuse) -> bool:
        """Pay for one frame of the kind that ``abuse`` names; False when it is one too many."""
        budget = self._budgets.get(abuse)
        if budget is None:
            budget = self._budgets[abuse] = Budget(self._allowances[abuse], self._clock)
        return budget.spend()
