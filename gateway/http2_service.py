"""Generate on the HTTP/2 edge. What it does with a call stands in ``generation``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from grpc import StatusCode

from gateway.call import Call
from gateway.carriers import Http2Carrier
from gateway.errors import DeadlineExceededError, to_rpc
from gateway.generation import Generation
from gateway.workers.upstreams import Upstreams
from tidegate.http2.grpc_status import Status
from tidegate.http2.server import Handler
from tidegate.http2.server_call import ServerCall, time_left_s
from tidegate.rpc.http2_calls import served
from tidegate.rpc.served_calls import ServedCalls

_LOGGER = logging.getLogger(__name__)

_GENERATE = "tidegate.inference.v1.InferenceService/Generate"
_OK = Status(code=StatusCode.OK)


class Http2Service:
    """The part of the public API that carries tokens."""

    def __init__(
        self, generation: Generation, upstreams: Upstreams, *, max_duration_s: float, max_stall_s: float
    ) -> None:
        """``max_duration_s`` holds for calls that have no shorter deadline; ``max_stall_s`` for those who read."""
        self._max_stall_s = max_stall_s
        self._generation = generation
        self._upstreams = upstreams
        self._max_duration_s = max_duration_s

    def handlers(self, calls: ServedCalls) -> Mapping[str, Handler]:
        """By full method name."""
        return {f"/{_GENERATE}": served(_GENERATE, self._serve, calls, to_rpc=to_rpc, logger=_LOGGER)}

    async def _serve(self, call: ServerCall) -> Status:
        begun = Call.begin(call.metadata, client_s=time_left_s(call), max_duration_s=self._max_duration_s)
        call.forget_metadata()
        carrier = Http2Carrier(call, self._upstreams, max_stall_s=self._max_stall_s)
        request = call.take_only()  # mostly, the head and the message come in one piece
        if request is None:
            request = await _received(call, begun)
        running = self._generation.run(request, begun, carrier)
        request = b""  # which would last as long as the stream
        await running
        return _OK


async def _received(call: ServerCall, begun: Call) -> bytes:
    """The request, which takes as long as its client likes, but for the deadline: it has one, whatever it says."""
    try:
        async with asyncio.timeout_at(begun.deadline_at):
            return await call.receive_only()
    except TimeoutError:
        raise DeadlineExceededError("the deadline passed before the whole request was here") from None
