"""The loads that every subject is put under."""

from __future__ import annotations

from dataclasses import dataclass

# More than any stream gets through; streams of timed scenarios are cancelled, not finished.
_ENDLESS_TOKENS = 1_000_000
_HALF_AN_HOUR_US = 1_800_000_000  # fits the 32 bits of SMG


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One load. With ``requests`` a closed loop; otherwise ``streams`` open streams, metered for ``seconds``.

    ``interval_us`` lies between two tokens of a stream; 0 is as fast as it goes.
    """

    name: str
    title: str
    streams: int
    channels: int
    requests: int = 0
    seconds: float = 0.0
    tokens: int = _ENDLESS_TOKENS
    interval_us: int = 0
    turns: int = 1
    """How often it is put on a subject that is up, one after the other; a closed loop is over in a second or less."""
    on_fresh_process: bool = False
    """Memory that an earlier load has left behind would hide what this one takes."""

    def arguments(self) -> list[str]:
        """For the load generator."""
        length = {"requests": self.requests} if self.requests else {"seconds": self.seconds}
        numbers = length | {
            "streams": self.streams,
            "channels": self.channels,
            "tokens": self.tokens,
            "interval-us": self.interval_us,
        }
        return [f"--{name}={number}" for name, number in numbers.items()]


FIRST_REQUEST = Scenario(name="first-request", title="", streams=1, channels=1, requests=1, tokens=1)
WARM_UP = Scenario(name="warm-up", title="", streams=16, channels=2, requests=400, tokens=16)

SCENARIOS = (
    Scenario(name="one", title="1 at a time", streams=1, channels=1, requests=300, tokens=1, turns=9),
    Scenario(name="sixteen", title="16 at a time", streams=16, channels=2, requests=1_000, tokens=1, turns=9),
    Scenario(name="flood", title="16 streams, flood", streams=16, channels=2, seconds=2.0),
    Scenario(name="paced-200", title="200 streams", streams=200, channels=2, seconds=3.0, interval_us=20_000),
    Scenario(name="paced-500", title="500 streams", streams=500, channels=4, seconds=3.0, interval_us=20_000),
    Scenario(name="paced-2000", title="2,000 streams", streams=2_000, channels=4, seconds=3.0, interval_us=20_000),
    Scenario(
        name="idle",
        title="10,000 idle streams",
        streams=10_000,
        channels=8,
        seconds=1.0,
        interval_us=_HALF_AN_HOUR_US,
        on_fresh_process=True,
    ),
)
