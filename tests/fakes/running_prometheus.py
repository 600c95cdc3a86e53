"""A real Prometheus that scrapes admin ports of this process, as deploy/compose has it."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.patience import PATIENCE_S
from tidegate.client.stack import free_port

_DEPLOY = Path(__file__).parents[2] / "deploy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """Its HTTP API."""

    address: str

    async def read(self, path: str, **parameters: str) -> Any:
        """What the API answers. Raises ``OSError`` while there is nobody who could."""

        def get() -> Any:
            url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
                return json.load(response)["data"]

        return await asyncio.to_thread(get)

    async def query(self, expression: str) -> Sequence[Mapping[str, Any]]:
        """The series that an expression gives now."""
        found: Sequence[Mapping[str, Any]] = (await self.read("query", query=expression))["result"]
        return found

    async def until_ready(self) -> None:
        """Wait until it answers."""
        while True:
            try:
                await self.read("status/buildinfo")
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def running_prometheus(
    directory: Path, targets: Mapping[str, str], *, interval: str
) -> AsyncIterator[Prometheus]:
    """Start it with the configuration of deploy/compose, but for ``targets`` (by job) and the interval."""
    config = yaml.safe_load((_DEPLOY / "compose/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    config["rule_files"] = [str(_DEPLOY / "telemetry/rules.yaml")]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    prometheus = Prometheus(address=f"127.0.0.1:{free_port()}")
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={prometheus.address}",
            "--enable-feature=exemplar-storage",
            stderr=log,
        )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await prometheus.until_ready()
        yield prometheus
    finally:
        process.terminate()
        await process.wait()
