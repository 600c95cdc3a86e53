"""What Generate does with a call, whichever data plane it came by: admit, prepare, dispatch."""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.admission import Admission
from gateway.call import Call
from gateway.dispatch import Carrier, Dispatch
from gateway.jobs import PreparedRequest, is_light
from gateway.policy.outcomes import no_worker_available
from gateway.policy.tenants import Tenants
from gateway.preparation import Preparation
from gateway.traffic_sketches import TrafficSketches
from gateway.workers.fleet import Fleet
from tidegate.rpc.running_calls import RunningCalls


class Generation:
    """The stages of a call, in their order."""

    def __init__(  # noqa: PLR0913 - the stages
        self,
        fleet: Fleet,
        *,
        running: RunningCalls,
        admission: Admission,
        preparation: Preparation,
        dispatch: Dispatch,
        traffic: TrafficSketches,
        tenants: Tenants,
    ) -> None:
        self._fleet = fleet
        self._running = running
        self._admission = admission
        self._preparation = preparation
        self._dispatch = dispatch
        self._traffic = traffic
        self._tenants = tenants

    async def run(self, request: bytes, call: Call, carrier: Carrier) -> None:
        """Serve ``request``, a serialised GenerateRequest; returns when the client has been sent all of the answer.

        Raises the ``GatewayError`` that the client is told.
        """
        with self._running.hold():
            await self._admitted(request, call, carrier)

    async def _admitted(self, request: bytes, call: Call, carrier: Carrier) -> None:
        async with self._admission.admit():
            models = self._fleet.models
            if not models:  # before any worker was seen, nothing can be said of a model's name
                raise no_worker_available()
            tenant = self._tenants.resolve(call.tenant_claim, asyncio.get_running_loop().time())
            prepared = await self._preparation.run(
                partial(PreparedRequest.from_public, request, models, response_id=call.response_id, tenant=tenant),
                size_bytes=len(request),
                deadline_at=call.deadline_at,
                is_light=is_light(request),
            )
            self._traffic.note(prepared)
            await self._dispatch.generate(prepared, call, carrier)
