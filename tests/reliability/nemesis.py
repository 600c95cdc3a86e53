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

from tests.reliability import intruders
from tests.reliability.services import Service, load_of
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.status import RpcError
from tidegate.worker.v1 import worker_service_pb2_grpc

# Partitions in turn, of which connections outlive the first: keepalive pings after 20 s, and waits for 10 s.
_CUTS_S = (10.0, 35.0)

# So long it takes clients at most to connect to an address anew.
_COME_BACK_S = 2.5

POISON = "a prompt that no engine survives"
_VANISHING, _STALLED, _HERD = 200, 20, 300
_INTRUDERS_TOKENS = 200
_STALL_S = 5.0
_UNUSED_S = 60.0  # a worker that is whole and gets no job for so long is left out by some defect
# In which a worker whose engine is dead has told so, and has ended.
_LAST_WORDS_S = 3.0


@dataclass(kw_only=True)
class Nemesis:
    """A fleet to be harmed, and how long it took to get over it."""

    workers: list[Service]
    gateways: list[Service]
    rng: random.Random
    faults: int = 0
    deaths: int = 0  # of engines, by poison
    poisoned: list[str] = field(default_factory=list)  # what the poison's clients were told
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

    async def poison(self) -> None:
        """A request that no engine survives, and its client's retry; those that died are started again."""
        request = inference_service_pb2.GenerateRequest(model="sim", text=f"{POISON}, for the {self.faults}th time")
        request.sampling.max_output_tokens = 8
        async with grpc.aio.insecure_channel(self.rng.choice(self.gateways).address) as channel:
            stub: inference_service_pb2_grpc.InferenceServiceAsyncStub
            stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
            for _ in range(2):
                self.poisoned.append(await _reason(stub, request))
        await asyncio.sleep(_LAST_WORDS_S)
        for worker in self.workers:
            if not worker.is_running:
                self.deaths += 1
                await worker.start()
                await worker.until_ready()
                self.recovery_s.append(await until_used(worker))

    async def vanish(self) -> None:
        """Clients that are gone in the middle of their calls."""
        address = self.rng.choice(self.gateways).address
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_VANISHING):
                tasks.create_task(intruders.vanish(address, self.rng, tokens=_INTRUDERS_TOKENS))
                await asyncio.sleep(self.rng.expovariate(_VANISHING))

    async def stall(self) -> None:
        """Clients that stop reading for some seconds, and are gone then."""
        address = self.rng.choice(self.gateways).address
        stalled = await asyncio.gather(
            *(intruders.stall(address, number, tokens=_INTRUDERS_TOKENS) for number in range(_STALLED))
        )
        await asyncio.sleep(_STALL_S)
        for reader in stalled:
            reader.close()

    async def herd(self) -> None:
        """More clients at one instant than the fleet has room for."""
        address = self.rng.choice(self.gateways).address
        await asyncio.gather(*(intruders.vanish(address, self.rng, tokens=_INTRUDERS_TOKENS) for _ in range(_HERD)))

    async def _replace(self, service: Service) -> None:
        service.signal(signal.SIGTERM)
        await service.gone()
        await service.start()
        await service.until_ready()


FAULTS: Mapping[str, Callable[[Nemesis], Awaitable[None]]] = MappingProxyType(
    {
        "kill": Nemesis.kill,
        "stop": Nemesis.stop,
        "restart": Nemesis.restart,
        "partition": Nemesis.partition,
        "poison": Nemesis.poison,
        "vanish": Nemesis.vanish,
        "stall": Nemesis.stall,
        "herd": Nemesis.herd,
    }
)


async def until_used(worker: Service) -> float:
    """Seconds from now, when the worker says that it serves, until a gateway has given it a job.

    Raises ``TimeoutError`` when that does not come.
    """
    begin = time.monotonic()
    async with grpc.aio.insecure_channel(worker.address) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        while not await _is_used(stub):
            if time.monotonic() - begin > _UNUSED_S:
                raise TimeoutError(f"worker {worker.address} was given no job for {_UNUSED_S:.0f} s")
            await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def _is_used(stub: worker_service_pb2_grpc.WorkerServiceAsyncStub) -> bool:
    try:
        return bool((await load_of(stub)).reserved_block_count)
    except grpc.aio.AioRpcError:  # of the partition, something may still be on its way
        return False


async def _reason(
    stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, request: inference_service_pb2.GenerateRequest
) -> str:
    """The reason of the error in which the call ends."""
    try:
        async for _ in stub.Generate(request, timeout=30):
            pass
    except grpc.aio.AioRpcError as error:
        return RpcError.from_call(error).reason
    return "FINISHED"


async def _nft(script: str) -> None:
    """Change the packet filter; of a network namespace of our own, see ``__main__``."""
    process = await asyncio.create_subprocess_exec("nft", script)
    if await process.wait():
        raise RuntimeError(f"nft {script}")
