"""Traces for the routing bench, made from a seed. Arrivals are Poisson: open loop, whatever the fleet does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from bench.routing.world import Arrival

_LONG_SHARE = 0.04
_LONG_MIN, _LONG_MAX = 8_000, 64_000


def heavy_tailed(*, rate: float, seconds: float, seed: int) -> Iterator[Arrival]:
    """Chat prompts of 300 tokens (median), and one in 25 of 8,000 to 64,000; 100 output tokens on average."""
    rng, fresh, now = random.Random(seed), count(), 0.0
    while (now := now + rng.expovariate(rate)) < seconds:
        if rng.random() < _LONG_SHARE:
            length = min(_LONG_MAX, int(_LONG_MIN * rng.paretovariate(1.2)))
        else:
            length = min(_LONG_MIN, max(8, int(rng.lognormvariate(5.7, 0.9))))
        yield Arrival(at_s=now, tokens=tuple(next(fresh) for _ in range(length)), output_tokens=_output(rng, 100))


def shared_prefixes(*, rate: float, seconds: float, seed: int, prefixes: int) -> Iterator[Arrival]:
    """Prompts that begin with one of ``prefixes`` texts of 2,000 tokens, some far more common than others."""
    rng, fresh, now = random.Random(seed), count(), 0.0
    texts = [tuple(next(fresh) for _ in range(2000)) for _ in range(prefixes)]
    weights = [1 / rank for rank in range(1, prefixes + 1)]
    while (now := now + rng.expovariate(rate)) < seconds:
        (text,) = rng.choices(texts, weights)
        own = tuple(next(fresh) for _ in range(max(8, int(rng.lognormvariate(4.6, 0.7)))))
        yield Arrival(at_s=now, tokens=text + own, output_tokens=_output(rng, 64))


def steady(*, rate: float, seconds: float, seed: int) -> Iterator[Arrival]:
    """Chat prompts of 500 tokens on average and outputs of 150: many small jobs, of which each worker holds dozens."""
    rng, fresh, now = random.Random(seed), count(), 0.0
    while (now := now + rng.expovariate(rate)) < seconds:
        length = min(4000, max(8, int(rng.lognormvariate(6.0, 0.6))))
        yield Arrival(at_s=now, tokens=tuple(next(fresh) for _ in range(length)), output_tokens=_output(rng, 150))


def _output(rng: random.Random, mean: float) -> int:
    return min(1000, 1 + int(rng.expovariate(1 / mean)))
