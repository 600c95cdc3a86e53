"""What is compared: nothing in between, Tidegate on both data planes, three proxies, and SMG."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from string import Template

from bench.data_plane import handshake
from bench.data_plane.accounting import ProcessTree
from bench.data_plane.processes import announced, free_port, listening
from bench.data_plane.toolchain import Toolchain

_PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a run takes place."""

    tools: Toolchain
    folder: Path
    model_file: Path
    prompt_file: Path
    logs: Iterator[int] = field(default_factory=count)

    def log(self, program: str) -> Path:
        """A new file for what a program writes."""
        return self.folder / f"{next(self.logs):02}-{program}.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A subject that is up. ``gateway`` is None where there is nothing between client and worker.

    ``load`` makes requests one after the other, ``streams`` keeps streams open.
    """

    address: str
    gateway: ProcessTree | None
    worker: ProcessTree
    load: Path
    streams: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One thing to measure."""

    name: str
    title: str
    start: Callable[[Site], AbstractContextManager[Running]]


@contextmanager
def _worker(site: Site) -> Iterator[tuple[int, str]]:
    command = [site.tools.worker, f"--model={site.model_file}", f"--tokenizer={handshake.MODEL_DIR}"]
    with announced([str(part) for part in command], site.log("worker")) as running:
        yield running


@contextmanager
def _direct(site: Site) -> Iterator[Running]:
    with _worker(site) as (pid, address):
        yield Running(
            address=address,
            gateway=None,
            worker=ProcessTree(pid=pid),
            load=site.tools.load,
            streams=site.tools.streams,
        )


def _tidegate(data_plane: str) -> Callable[[Site], AbstractContextManager[Running]]:
    @contextmanager
    def start(site: Site) -> Iterator[Running]:
        with _worker(site) as (worker_pid, worker):
            command = [
                sys.executable,
                "-m",
                "gateway",
                "--listen=127.0.0.1:0",
                f"--workers={worker}",
                "--admin-listen=127.0.0.1:0",
            ]
            command += ["--max-in-flight=20000", f"--data-plane={data_plane}"]
            with announced(command, site.log(f"gateway-{data_plane}")) as (pid, address):
                yield Running(
                    address=address,
                    gateway=ProcessTree(pid=pid),
                    worker=ProcessTree(pid=worker_pid),
                    load=site.tools.load,
                    streams=site.tools.streams,
                )

    return start


def _proxy(config: str, command: Callable[[Toolchain], list[str]]) -> Callable[[Site], AbstractContextManager[Running]]:
    @contextmanager
    def start(site: Site) -> Iterator[Running]:
        with _worker(site) as (worker_pid, worker):
            port = free_port()
            path = site.folder / config
            template = Template((_PEERS / config).read_text(encoding="utf-8"))
            path.write_text(template.substitute(PORT=port, WORKER=worker.rpartition(":")[2], FOLDER=site.folder))
            with listening([*command(site.tools), str(path)], port, site.log(config)) as (pid, address):
                yield Running(
                    address=address,
                    gateway=ProcessTree(pid=pid),
                    worker=ProcessTree(pid=worker_pid),
                    load=site.tools.load,
                    streams=site.tools.streams,
                )

    return start


@contextmanager
def _smg(site: Site) -> Iterator[Running]:
    command = [str(site.tools.vllm_worker), f"--model-dir={handshake.MODEL_DIR}"]
    with announced(command, site.log("vllm-worker")) as (worker_pid, worker):
        port, metrics_port = free_port(), free_port() + 1
        arguments = {
            "host": "127.0.0.1",
            "port": port,
            "worker-urls": f"grpc://{worker}",
            "model-path": handshake.MODEL_DIR,
            "policy": "round_robin",
            "prometheus-port": metrics_port,
            "max-concurrent-requests": 30_000,
            "log-level": "error",
        }
        command = [str(site.tools.smg), "launch", *(f"--{name}={value}" for name, value in arguments.items())]
        with listening(command, port, site.log("smg")) as (pid, address):
            yield Running(
                address=address,
                gateway=ProcessTree(pid=pid),
                worker=ProcessTree(pid=worker_pid),
                load=site.tools.sse_load,
                streams=site.tools.sse_load,
            )


SUBJECTS = (
    Subject(name="direct", title="direct", start=_direct),
    Subject(name="tidegate-http2", title="Tidegate, http2 plane", start=_tidegate("http2")),
    Subject(name="tidegate-grpc", title="Tidegate, grpc plane", start=_tidegate("grpc")),
    Subject(
        name="envoy",
        title="Envoy",
        start=_proxy(
            "envoy.yaml", lambda tools: [str(tools.envoy), "--concurrency", "1", "--log-level", "error", "-c"]
        ),
    ),
    Subject(name="nginx", title="nginx", start=_proxy("nginx.conf", lambda tools: [str(tools.nginx), "-c"])),
    Subject(name="haproxy", title="haproxy", start=_proxy("haproxy.cfg", lambda tools: [str(tools.haproxy), "-f"])),
    Subject(name="smg", title="SMG", start=_smg),
)
