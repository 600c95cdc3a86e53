"""What a load costs on GPUs and through APIs, by the prices in a file. None are known here."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from worker.plan.pace import Traffic

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Somebody else's service: prices for a million tokens."""

    name: str
    input_per_million: float
    output_per_million: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In one currency."""

    currency: str
    gpu_per_hour: dict[str, float]
    apis: tuple[Api, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what is no price."""
        figures = [*self.gpu_per_hour.values()]
        for api in self.apis:
            figures += [api.input_per_million, api.output_per_million]
        if not all(
            type(figure) in {int, float} and 0 <= figure < math.inf for figure in figures
        ):  # files hold anything
            raise ValueError("prices have to be numbers, and not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one way to serve a load."""

    name: str
    per_hour: float
    per_million_tokens: float  # prompt and output together
    per_million_output_tokens: float  # the prompts' cost included


def load_prices(path: Path) -> Prices:
    """The prices in a TOML or JSON file. Raises ``ValueError``."""
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        apis = tuple(Api(**api) for api in fields.pop("api", ()))
        return Prices(**fields, apis=apis)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def costs(prices: Prices, traffic: Traffic, requests_per_s: float, *, gpu: str, gpu_count: int) -> list[Cost]:
    """Of the planned GPUs, where their price is known, and of each API."""
    hourly = [(f"{gpu_count} x {gpu}", prices.gpu_per_hour[gpu] * gpu_count)] if gpu in prices.gpu_per_hour else []
    millions_per_hour = requests_per_s * 3600 / _MILLION
    for api in prices.apis:
        request = traffic.prompt_tokens * api.input_per_million + traffic.output_tokens * api.output_per_million
        hourly.append((api.name, millions_per_hour * request))
    output = millions_per_hour * traffic.output_tokens
    both = output + millions_per_hour * traffic.prompt_tokens
    return [
        Cost(
            name=name,
            per_hour=per_hour,
            per_million_tokens=per_hour / both,
            per_million_output_tokens=per_hour / output,
        )
        for name, per_hour in hourly
    ]
