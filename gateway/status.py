"""The state of a gateway as one JSON document, for the status page and `tidegate top`. Only looks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.admission import Admission
from gateway.config import GatewaySettings
from gateway.journal import Journal
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Seat
from tidegate import __version__
from tidegate.native.choice import CHOICE
from tidegate.rpc.lifecycle import Lifecycle
from tidegate.telemetry.admin import Page
from tidegate.telemetry.loop_lag import LoopLag

_PAGE = Path(__file__).parent / "status_page"
_SHOWN_ENTRIES = 50


class Status:
    """Reads it when asked."""

    def __init__(  # noqa: PLR0913 - what there is to see
        self,
        settings: GatewaySettings,
        *,
        fleet: Fleet,
        admission: Admission,
        lifecycle: Lifecycle,
        journal: Journal,
        lag: LoopLag,
        waiting: Callable[[], Mapping[tuple[str, str], int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``waiting`` counts the generations that wait, by criticality and tenant; ``clock`` is that of loads."""
        self._settings = settings
        self._fleet = fleet
        self._admission = admission
        self._lifecycle = lifecycle
        self._journal = journal
        self._lag = lag
        self._waiting = waiting
        self._clock = clock

    def document(self) -> dict[str, Any]:
        """Everything, as of now."""
        seats = self._fleet.seats
        seated = {seat.worker_id for seat in seats}
        return {
            "version": __version__,
            "runtime": CHOICE.runtime,
            "is_draining": self._lifecycle.is_draining,
            "is_serving": self._fleet.is_serving,
            "event_loop_lag_s": round(self._lag.longest_s, 4),
            "calls": {"in_flight": self._admission.calls_in_flight, "limit": self._settings.max_in_flight},
            "first_token_s": self._first_token(),
            "waiting": [
                {"criticality": criticality, "tenant": tenant, "requests": count}
                for (criticality, tenant), count in sorted(self._waiting().items())
            ],
            "workers": [self._worker(seat) for seat in sorted(seats, key=lambda seat: seat.worker_id)],
            "away": sorted(self._fleet.named - seated),
            "refusals": [
                {
                    "tenant": tenant,
                    "criticality": criticality,
                    "reason": reason,
                    "count": refused.count,
                    "latest": self._entry(refused.latest),
                }
                for (tenant, criticality, reason), refused in sorted(
                    self._journal.refusals.items(), key=lambda item: -item[1].count
                )
            ],
            "latest": [self._entry(entry) for entry in self._journal.entries[:_SHOWN_ENTRIES]],
        }

    def pages(self) -> dict[str, Page]:
        """What the admin port serves."""

        def file(name: str, content_type: str) -> Page:
            content = (_PAGE / name).read_bytes()
            return Page(content_type=content_type, content=lambda: content)

        return {
            "/": file("index.html", "text/html; charset=utf-8"),
            "/page.css": file("page.css", "text/css; charset=utf-8"),
            "/page.js": file("page.js", "text/javascript; charset=utf-8"),
            "/status.json": Page(content_type="application/json", content=lambda: json.dumps(self.document()).encode()),
        }

    def _first_token(self) -> dict[str, float] | None:
        found = self._journal.first_token_quantiles()
        return None if found is None else {"p50": round(found[0], 4), "p99": round(found[1], 4)}

    def _worker(self, seat: Seat) -> dict[str, Any]:
        load, now = seat.load, self._clock()
        return {
            "address": seat.worker_id,
            "model": seat.model.name,
            "state": "draining" if load.is_draining else "out" if seat.is_out(now) else "serving",
            "blocks": {
                "total": load.total_blocks,
                "used": load.total_blocks - load.free_blocks,
                "reserved": load.reserved_blocks,
                "unseen": seat.unseen.blocks,
            },
            "block_size": load.block_size,
            "running": load.running_requests,
            "in_flight": seat.in_flight,
            "pending_prefill_tokens": load.pending_prefill_tokens,
            "prefill_tokens_per_s": round(load.prefill_tokens_per_s),
            "decode_tokens_per_s": round(load.decode_tokens_per_s),
            "load_age_s": round(now - load.received_at, 3),
            "breakers": {phase.value: state.value for phase, state in seat.standing.states.items()},
        }

    def _entry(self, entry: Any) -> dict[str, Any]:
        shown = asdict(entry)
        shown.pop("ended_at")
        return {"age_s": round(self._journal.age_s(entry), 1)} | {
            name: round(value, 4) if isinstance(value, float) else value for name, value in shown.items()
        }
