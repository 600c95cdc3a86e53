"""Generate on the HTTP/2 edge: the tokens of one engine step leave together, one write for each connection.

Nothing is queued here. A stream whose reader lags takes its next output from the engine only when the last one has
left, and engines merge what is not taken: its first token comes at once, then whatever has accumulated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial

from google.protobuf.message import DecodeError
from grpc import StatusCode

from tidegate.http2.grpc_status import Status
from tidegate.http2.messages import framed
from tidegate.http2.metadata import Metadata
from tidegate.http2.server import Handler
from tidegate.http2.server_call import ServerCall, time_left_s
from tidegate.inference.v1 import inference_service_pb2
from tidegate.rpc.http2_calls import guarded, traced
from tidegate.rpc.running_calls import RunningCalls
from tidegate.rpc.status import Violation
from tidegate.rpc.telemetry import ServedCalls
from tidegate.worker.v1 import worker_service_pb2
from worker.errors import InvalidJobError, to_rpc
from worker.service import WorkerService, finished_trailers

_LOGGER = logging.getLogger(__name__)

# Each is the first byte of a response with that event.
_STARTED_TAG = bytes((inference_service_pb2.GenerateResponse.STARTED_FIELD_NUMBER << 3 | 2,))
_FINISHED_TAG = bytes((inference_service_pb2.GenerateResponse.FINISHED_FIELD_NUMBER << 3 | 2,))


class Http2Service:
    """The part of ``tidegate.worker.v1.WorkerService`` that carries tokens."""

    def __init__(self, service: WorkerService, running: RunningCalls) -> None:
        self._service = service
        self._running = running

    def handlers(self, calls: ServedCalls) -> Mapping[str, Handler]:
        """By full method name."""
        serve = traced(guarded(self._serve, to_rpc, _LOGGER), calls)
        return {"/tidegate.worker.v1.WorkerService/Generate": serve}

    async def _serve(self, call: ServerCall) -> Status:
        trailers: tuple[tuple[str, bytes], ...] = ()
        started = b""
        with self._running.hold():
            request = _parsed(await call.receive_only())
            responding = self._service.responses(
                request, call.metadata, time_left_s(call), send_head=partial(_send_head, call)
            )
            async with aclosing(responding) as responses:
                async for response in responses:
                    message = response.SerializeToString()
                    if message[:1] == _STARTED_TAG:  # the first token is there, too, and they go together
                        started = framed(message)
                        continue
                    if message[:1] == _FINISHED_TAG:
                        trailers = finished_trailers(response)
                    if not call.send_frames(started + framed(message)):
                        await call.drained()
                    started = b""
        return Status(code=StatusCode.OK, metadata=trailers)


async def _send_head(call: ServerCall, metadata: Metadata) -> None:
    call.send_initial_metadata(metadata)


def _parsed(message: bytes) -> worker_service_pb2.GenerateRequest:
    try:
        return worker_service_pb2.GenerateRequest.FromString(message)
    except DecodeError as error:
        raise InvalidJobError([Violation(field="", description="is not a GenerateRequest")]) from error
