"""What services say of themselves on their admin ports, once nobody asks anything of them any more."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from tests.reliability.services import Service

# What counts calls and requests that are under way.
_UNDER_WAY = (
    *("tidegate_calls_in_flight", "tidegate_queue_requests", "tidegate_ledger_requests", "tidegate_engine_requests"),
    "tidegate_worker_requests",
)
_PATIENCE_S, _LOOK_S = 30.0, 0.1  # a machine may be busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


async def samples(service: Service) -> list[Sample]:
    """All metrics of a service, as of now."""
    text = await asyncio.to_thread(_read, f"http://{service.admin_address}/metrics")
    return [
        Sample(name=sample.name, labels=sample.labels, value=sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


async def left_under_way(services: Sequence[Service]) -> list[str]:
    """What is still under way a while after the last client has gone; there should be nothing."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_S
    while True:
        left = [found for service in services for found in _under_way(service, await samples(service))]
        if not left or loop.time() > until:
            return left
        await asyncio.sleep(_LOOK_S)


def total(found: Sequence[Sample], name: str, **labels: str) -> float:
    """The sum over all series of ``name`` that have these labels."""
    return sum(sample.value for sample in found if sample.name == name and labels.items() <= sample.labels.items())


def _under_way(service: Service, found: Sequence[Sample]) -> Iterator[str]:
    for sample in found:
        if sample.name in _UNDER_WAY and sample.value:
            yield f"{service.address}: {sample.name} {sample.labels} {sample.value:g}"


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - a loopback address of our own
        return str(response.read().decode())
