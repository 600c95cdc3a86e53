"""What is done to a fleet while clients use it. Each fault is one coroutine that leaves the fleet whole again."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import grpc.aio

from tests.reliability.services import Service, load_of
from tidegate.worker.v1 import worker_service_pb2_grpc

# Partitions in turn, of which connections outlive the first: keepalive pings after 20 s, and waits for 10 s.
_CUTS_S = (10.0, 35.0)

# So long it takes clients at most to connect to an address anew.
_COME_BACK_S = 2.5


@dataclass(kw_only=True)
class Nemesis:
    """A fleet to be harmed, and how long it took to get over it."""

    workers: list[Service]
    gateways: list[Service]
    rng: random.Random
    faults: int = 0
    recovery_s: list[float] = field(default_factory=list)

    async def kill(self) -> None:
        """``kill -9`` of a worker, and its restart."""
        victim = self.rng.choice(self.workers)
        victim.signal(signal.SIGKILL)
        await victim.gone()
        await victim.start()
        await victim.until_ready()
        self.recovery_s.append(await until_used(victim))

    async def stop(self) -> None:
        """A worker hangs for some seconds, and goes on."""
        victim = self.rng.choice(self.workers)
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(4, 6))
        victim.signal(signal.SIGCONT)
        self.recovery_s.append(await until_used(victim))

    async def partition(self) -> None:
        """A worker is cut off: its packets vanish, and come again. Only in a network namespace of our own."""
        victim = self.rng.choice(self.workers)
        _, _, port = victim.address.rpartition(":")
        await _nft("add table inet cut; add chain inet cut out { type filter hook output priority 0; }")
        await _nft(f"add rule inet cut out tcp dport {port} drop; add rule inet cut out tcp sport {port} drop")
        try:
            await asyncio.sleep(_CUTS_S[self.faults % len(_CUTS_S)])
        finally:
            await _nft("delete table inet cut")
        self.recovery_s.append(await until_used(victim))

    async def restart(self) -> None:
        """A rolling restart of all workers, and then of all gateways, if there are several."""
        for service in self.workers:
            await self._replace(service)
            self.recovery_s.append(await until_used(service))
        for service in self.gateways if len(self.gateways) > 1 else ():
            await self._replace(service)
            await asyncio.sleep(_COME_BACK_S)

    async def _replace(self, service: Service) -> None:
        service.signal(signal.SIGTERM)
        await service.gone()
        await service.start()
        await service.until_ready()


FAULTS: Mapping[str, Callable[[Nemesis], Awaitable[None]]] = MappingProxyType(
    {"kill": Nemesis.kill, "stop": Nemesis.stop, "restart": Nemesis.restart, "partition": Nemesis.partition}
)


async def until_used(worker: Service) -> float:
    """Seconds from now, when the worker says that it serves, until a gateway has given it a job."""
    begin = time.monotonic()
    async with grpc.aio.insecure_channel(worker.address) as channel, asyncio.timeout(60):
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        while not await _is_used(stub):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def _is_used(stub: worker_service_pb2_grpc.WorkerServiceAsyncStub) -> bool:
    try:
        return bool((await load_of(stub)).reserved_block_count)
    except grpc.aio.AioRpcError:  # of the partition, something may still be on its way
        return False


async def _nft(script: str) -> None:
    """Change the packet filter; of a network namespace of our own, see ``__main__``."""
    process = await asyncio.create_subprocess_exec("nft", script)
    if await process.wait():
        raise RuntimeError(f"nft {script}")
