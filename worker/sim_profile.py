"""Profiles of the sim engine: the size of an engine and how long its steps take, as fitted to a measured machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTiming:
    """The time of one engine step, linear in what it computes. Durations in seconds.

    At 8 billion parameters a step is one pass over the weights (``base_s``) plus work per prompt token and per decoding
    request; attention over long contexts is not told apart, the measured prompts having one length.
    """

    base_s: float
    prefill_token_s: float
    decode_request_s: float
    # From a request's submission until a step can take it: front end, inter-process hop, input preparation.
    request_overhead_s: float
    # More for a step that does both: it fits none of the CUDA graphs that were recorded for decoding alone. Bursts
    # hardly show it; steady traffic has one such step for each request.
    mixed_step_s: float = 0.0

    def step_s(self, *, prefill_tokens: int, decode_requests: int) -> float:
        """How long a step takes that computes so many prompt tokens and extends so many outputs."""
        mixed_s = self.mixed_step_s if prefill_tokens and decode_requests else 0.0
        return self.base_s + prefill_tokens * self.prefill_token_s + decode_requests * self.decode_request_s + mixed_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A closed-loop run of the real engine: ``concurrency`` requests at once, all of one shape.

    TTFT and ITL are medians.
    """

    concurrency: int
    rounds: int
    prompt_tokens: int
    output_tokens: int
    ttft_ms: float
    itl_ms: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SimProfile:
    """An engine to imitate. ``source`` says where ``measured`` comes from; ``timing`` is fitted to it.

    ``gpu``, ``parameters`` and ``weight_bytes`` are of what was measured; empty and 0 where nobody wrote them down.
    """

    name: str
    source: str
    block_size: int
    total_blocks: int
    context_length: int
    max_running_requests: int
    max_batched_tokens: int
    timing: StepTiming
    measured: tuple[Measurement, ...] = ()
    gpu: str = ""
    parameters: int = 0
    weight_bytes: int = 0

    def __post_init__(self) -> None:
        """Refuse a profile whose engine could never make a step."""
        sizes = (self.block_size, self.total_blocks, self.context_length, self.max_running_requests)
        if min(sizes) < 1 or self.max_batched_tokens < self.max_running_requests:
            raise ValueError("sizes must be positive, and max_batched_tokens at least max_running_requests")
        if min(asdict(self.timing).values()) < 0:
            raise ValueError("durations must not be negative")

    @property
    def kv_pool_tokens(self) -> int:
        """Tokens that the whole KV cache holds."""
        return self.total_blocks * self.block_size


def load_profile(name: str) -> SimProfile:
    """The profile of that name among those shipped, or in the file of that path. Raises ``ValueError``."""
    shipped = _PROFILES / f"{name}.json"
    path = shipped if shipped.exists() else Path(name)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        timing = StepTiming(**fields.pop("timing"))
        measured = tuple(Measurement(**row) for row in fields.pop("measured", ()))
        return SimProfile(**fields, timing=timing, measured=measured)
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in _PROFILES.glob("*.json")))
        raise ValueError(f"no profile {name!r}; shipped are: {known}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"profile {path}: {error}") from error


def shipped_profiles() -> list[SimProfile]:
    """Those that are part of the package."""
    return [load_profile(file.stem) for file in sorted(_PROFILES.glob("*.json"))]


def dump_profile(profile: SimProfile) -> str:
    """The profile as the JSON text that ``load_profile`` reads."""
    return json.dumps(asdict(profile), indent=2) + "\n"
