"""What the gateway's metrics and its status page read from its parts, at the time when somebody looks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from gateway.admission import Admission
from gateway.config import GatewaySettings
from gateway.policy.breaker import BreakerState
from gateway.traffic_sketches import TrafficSketches
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Seat
from tidegate import __version__
from tidegate.http2.limits import Abuse
from tidegate.native.choice import CHOICE
from tidegate.rpc.lifecycle import Lifecycle
from tidegate.telemetry import catalogue
from tidegate.telemetry.conventions import (
    CRITICALITY,
    GEN_AI_REQUEST_MODEL,
    KIND,
    PHASE,
    RUNTIME,
    SERVER_ADDRESS,
    STATE,
    TENANT,
)
from tidegate.telemetry.labels import BoundedLabels
from tidegate.telemetry.loop_lag import LoopLag
from tidegate.telemetry.metrics import Metrics, Reading


def observe_fleet(metrics: Metrics, fleet: Fleet, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Show the workers as this gateway sees them. ``clock`` is that of their loads."""

    def workers() -> Iterator[Reading]:
        counts = Counter("draining" if seat.load.is_draining else "serving" for seat in fleet.seats)
        counts["away"] = max(0, len(fleet.named) - counts.total())
        for state in ("serving", "draining", "away"):
            yield counts[state], {STATE: state}

    def blocks() -> Iterator[Reading]:
        for seat in fleet.seats:
            for state, count in block_states(seat).items():
                yield count, {SERVER_ADDRESS: seat.worker_id, STATE: state}

    def requests() -> Iterator[Reading]:
        for seat in fleet.seats:
            yield seat.load.running_requests, {SERVER_ADDRESS: seat.worker_id, STATE: "running"}
            yield seat.in_flight, {SERVER_ADDRESS: seat.worker_id, STATE: "in_flight"}

    def load_ages() -> Iterator[Reading]:
        for seat in fleet.seats:
            yield clock() - seat.load.received_at, {SERVER_ADDRESS: seat.worker_id}

    metrics.observe(catalogue.WORKERS, workers)
    metrics.observe(catalogue.WORKER_BLOCKS, blocks)
    metrics.observe(catalogue.WORKER_REQUESTS, requests)
    metrics.observe(catalogue.WORKER_LOAD_AGE, load_ages)


def observe_breakers(metrics: Metrics, fleet: Fleet) -> None:
    """Show what this gateway thinks of its workers."""

    def breakers() -> Iterator[Reading]:
        for seat in fleet.seats:
            for phase, current in seat.standing.states.items():
                labels = {SERVER_ADDRESS: seat.worker_id, PHASE: phase.value}
                for state in BreakerState:
                    yield float(state is current), labels | {STATE: state.value}

    metrics.observe(catalogue.BREAKER, breakers)


def observe_process(
    metrics: Metrics, admission: Admission, lifecycle: Lifecycle, lag: LoopLag, settings: GatewaySettings
) -> None:
    """Show what this process holds, and how it is."""
    metrics.observe(catalogue.CALLS_IN_FLIGHT, lambda: [(admission.calls_in_flight, {})])
    metrics.observe(catalogue.CALLS_LIMIT, lambda: [(settings.max_in_flight, {})])
    metrics.observe(catalogue.DRAINING, lambda: [(float(lifecycle.is_draining), {})])
    metrics.observe(catalogue.LOOP_LAG, lambda: [(lag.longest_s, {})])
    metrics.observe(catalogue.INFO, lambda: [(1, {"service.version": __version__, RUNTIME: CHOICE.runtime})])


def observe_edge(metrics: Metrics, abuse: Mapping[Abuse, int]) -> None:
    """Show what peers of the HTTP/2 edge did that they may not."""
    metrics.observe(catalogue.EDGE_ABUSE, lambda: [(abuse.get(kind, 0), {KIND: kind.value}) for kind in Abuse])


def observe_readers(metrics: Metrics, held_bytes: Callable[[], Sequence[int]]) -> None:
    """Show how far clients are behind. ``held_bytes`` tells for each call with something unread, how much."""
    metrics.observe(catalogue.READERS_BEHIND, lambda: [(len(held_bytes()), {})])
    metrics.observe(catalogue.READERS_HELD, lambda: [(sum(held_bytes()), {})])


def observe_queue(metrics: Metrics, waiting: Callable[[], Mapping[tuple[str, str], int]]) -> None:
    """Show who waits. ``waiting`` counts by criticality and tenant."""
    tenants = BoundedLabels()

    def requests() -> Iterator[Reading]:
        counts: Counter[tuple[str, str]] = Counter()
        for (criticality, tenant), count in waiting().items():
            counts[(criticality, tenants.label(tenant))] += count
        for (criticality, tenant), count in counts.items():
            yield count, {CRITICALITY: criticality, TENANT: tenant}

    metrics.observe(catalogue.QUEUE_REQUESTS, requests)


def observe_traffic(metrics: Metrics, sketches: TrafficSketches) -> None:
    """Show whether what is asked is what the checkpoints were made for."""
    metrics.observe(
        catalogue.CALIBRATION_DRIFT,
        lambda: [(drift, {GEN_AI_REQUEST_MODEL: model}) for model, drift in sketches.calibration_drift.items()],
    )


def block_states(seat: Seat) -> dict[str, int]:
    """A worker's KV blocks by state, as the metrics name them."""
    return {
        "total": seat.load.total_blocks,
        "free": seat.load.free_blocks,
        "reserved": seat.load.reserved_blocks,
        "reclaimable": seat.load.reclaimable_blocks,
        "unseen": seat.unseen.blocks,
    }
