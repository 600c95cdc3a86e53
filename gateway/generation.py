"""What Generate does with a call, whichever data plane it came by: admit, prepare, dispatch."""

from __future__ import annotations

import asyncio
from functools import partial

from google.protobuf.message import DecodeError

from gateway.admission import Admission
from gateway.call import Call
from gateway.criticality import rank_of
from gateway.dispatch import Carrier, Dispatch
from gateway.jobs import PreparedRequest, light
from gateway.policy.outcomes import no_worker_available
from gateway.policy.tenants import Tenants
from gateway.policy.waiter import CLASS_COUNT
from gateway.preparation import Preparation
from gateway.records import Records
from gateway.resume import ResumeTokens
from gateway.traffic_sketches import TrafficSketches
from gateway.waiting_room import WaitingRoom
from gateway.workers.fleet import Fleet
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.running_calls import RunningCalls
from tidegate.telemetry import conventions as names


class Generation:
    """The stages of a call, in their order. Make it inside a running event loop."""

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
        waiting_room: WaitingRoom,
        records: Records,
        resume_tokens: ResumeTokens,
    ) -> None:
        self._fleet = fleet
        self._running = running
        self._admission = admission
        self._preparation = preparation
        self._dispatch = dispatch
        self._traffic = traffic
        self._tenants = tenants
        self._waiting_room = waiting_room
        self._records = records
        self._resume_tokens = resume_tokens
        self._loop = asyncio.get_running_loop()

    async def run(self, request: bytes, call: Call, carrier: Carrier) -> None:
        """Serve ``request``, a serialised GenerateRequest; returns when the client has been sent all of the answer.

        Raises the ``GatewayError`` that the client is told.
        """
        with self._running.hold(), self._records.begin(call) as record:
            if self._admission.is_full and self._waiting_room.make_way(_rank(request)):
                await asyncio.sleep(0)  # in which the one that was sent away goes
            with self._admission.admit():
                if not self._fleet.models:  # before any worker was seen, nothing can be said of a model's name
                    raise no_worker_available()
                record.tenant = self._tenants.resolve(call.tenant_claim, self._loop.time())
                with record.stage(names.VALIDATE):
                    parsed = light(request)
                    if parsed is None:
                        prepared = await self._prepared_by_a_thread(request, call, record.tenant)
                    else:
                        if not self._preparation.take_turn(self._loop):
                            await self._preparation.turn(self._loop)
                        prepared = self._prepared(parsed, call, record.tenant)
                request, parsed = b"", None  # which would last as long as the stream
                self._traffic.note(prepared)
                prepared = prepared.without_text()
                await self._dispatch.generate(prepared, call, carrier, record)

    def _prepared(
        self, request: bytes | inference_service_pb2.GenerateRequest, call: Call, tenant: str
    ) -> PreparedRequest:
        return PreparedRequest.from_public(
            request,
            self._fleet.models,
            response_id=call.response_id,
            tenant=tenant,
            resume_tokens=self._resume_tokens,
        )

    async def _prepared_by_a_thread(self, request: bytes, call: Call, tenant: str) -> PreparedRequest:
        prepare = partial(self._prepared, request, call, tenant)
        return await self._preparation.run(prepare, size_bytes=len(request), deadline_at=call.deadline_at)


def _rank(request: bytes) -> int:
    """The rank of a request that is not validated yet; the last one for what is no request."""
    try:
        criticality = inference_service_pb2.GenerateRequest.FromString(request).criticality
    except DecodeError:
        return CLASS_COUNT - 1
    return rank_of(criticality or generation_pb2.CRITICALITY_CRITICAL)
