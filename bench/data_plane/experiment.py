"""Puts one subject under one load and reads the meters."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.data_plane.accounting import MachineTime, ProcessTree
from bench.data_plane.processes import StartError
from bench.data_plane.scenarios import FIRST_REQUEST, WARM_UP, Scenario
from bench.data_plane.subjects import Running, Site, Subject

_SETTLE_S = 0.5
_ATTEMPTS = 60
_LOAD_TIMEOUT_S = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One load on one subject. Times of tokens in microseconds; None where there is nothing to measure.

    CPU seconds, messages and ``wall_s`` are of the same span: the whole of a closed loop, the metered part of open
    streams. ``others_share`` is the share of the machine that went to processes of others meanwhile.
    """

    subject: str
    scenario: str
    round: int
    wall_s: float
    messages: int
    requests: int
    failed: int
    error: str
    gateway_cpu_s: float | None
    worker_cpu_s: float
    client_cpu_s: float
    others_share: float
    base_pss_bytes: int | None
    pss_bytes: int | None
    ttft_p50_us: float | None
    ttft_p99_us: float | None
    latency_p50_us: float | None
    latency_p99_us: float | None


def measure(subject: Subject, scenarios: tuple[Scenario, ...], site: Site, round_: int) -> Iterator[Measurement]:
    """Every scenario on one subject, those on a fresh process last."""
    shared = [scenario for scenario in scenarios if not scenario.on_fresh_process]
    batches = [shared] if shared else []
    batches += [[scenario] for scenario in scenarios if scenario.on_fresh_process]
    for batch in batches:
        with subject.start(site) as running:
            until_serving(running, site)
            _Load(running, WARM_UP, site).run()
            for scenario in batch:
                time.sleep(_SETTLE_S)
                for _ in range(scenario.turns):
                    yield _Load(running, scenario, site).measure(subject, round_)


def until_serving(running: Running, site: Site) -> None:
    """A gateway listens before it has shaken hands with its worker."""
    for _ in range(_ATTEMPTS):
        if _Load(running, FIRST_REQUEST, site).run():
            return
        time.sleep(_SETTLE_S)
    raise StartError(f"{running.address} does not serve")


@dataclass(frozen=True, slots=True)
class _Meters:
    gateway_cpu_s: float
    worker_cpu_s: float
    machine: MachineTime

    @classmethod
    def read(cls, running: Running) -> _Meters:
        return cls(running.gateway.cpu_s() if running.gateway else 0.0, running.worker.cpu_s(), MachineTime.read())


class _Load:
    """One run of a load generator."""

    def __init__(self, running: Running, scenario: Scenario, site: Site) -> None:
        self._running = running
        self._scenario = scenario
        target = [f"--target={running.address}", f"--prompt-file={site.prompt_file}"]
        program = running.load if scenario.requests else running.streams
        self._command = [str(program), *target, *scenario.arguments()]

    def run(self) -> bool:
        """For its effect on the gateway; whether every request succeeded."""
        done = subprocess.run(self._command, capture_output=True, text=True, timeout=_LOAD_TIMEOUT_S, check=False)
        return done.returncode == 0

    def measure(self, subject: Subject, round_: int) -> Measurement:
        gateway = self._running.gateway
        base_pss = gateway.pss_bytes() if gateway else None
        with subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True) as process:
            client = ProcessTree(pid=process.pid)
            first, first_client_s = _Meters.read(self._running), 0.0
            last, last_client_s = first, 0.0
            pss: int | None = None
            lines: dict[str, dict[str, Any]] = {}
            for line in process.stdout or ():
                said = json.loads(line)
                lines[said["event"]] = said
                if said["event"] == "open":
                    first, first_client_s = _Meters.read(self._running), client.cpu_s()
                    pss = gateway.pss_bytes() if gateway else None
                elif said["event"] == "close" or "close" not in lines:
                    last, last_client_s = _Meters.read(self._running), said["client_cpu_s"]
        end = lines.get("end", {"failed": 1, "error": "the load generator died"})
        span = lines.get("close", end)
        gateway_s = last.gateway_cpu_s - first.gateway_cpu_s
        worker_s = last.worker_cpu_s - first.worker_cpu_s
        client_s = last_client_s - first_client_s
        machine_s = max(1e-9, last.machine.total_s - first.machine.total_s)
        others_s = last.machine.busy_s - first.machine.busy_s - gateway_s - worker_s - client_s
        return Measurement(
            subject=subject.name,
            scenario=self._scenario.name,
            round=round_,
            wall_s=span.get("wall_s", 0.0),
            messages=span.get("messages", 0),
            requests=end.get("finished", 0),
            failed=end["failed"],
            error=end["error"],
            gateway_cpu_s=gateway_s if gateway else None,
            worker_cpu_s=worker_s,
            client_cpu_s=client_s,
            others_share=max(0.0, others_s / machine_s),
            base_pss_bytes=base_pss,
            pss_bytes=pss,
            **{f"{name}_us": _known(end.get(f"{name}_us")) for name in _TIMES},
        )


_TIMES = ("ttft_p50", "ttft_p99", "latency_p50", "latency_p99")


def _known(us: float | None) -> float | None:
    return None if us is None or us < 0 else us


def select(names: str | None, *, among: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of ``among`` that ``names``, separated by commas, name; all without it. Raises ``ValueError``."""
    if names is None:
        return among
    wanted = [name.strip() for name in names.split(",")]
    unknown = sorted(set(wanted) - {item.name for item in among})
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not among {', '.join(item.name for item in among)}")
    return tuple(item for item in among if item.name in wanted)
