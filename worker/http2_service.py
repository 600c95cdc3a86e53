"""Generate on the HTTP/2 edge: the tokens of one engine step leave together, one write for each connection.

Nothing is queued here. A stream whose reader lags takes its next output only when the last one has left, and what is
not taken merges: its first token comes at once, then whatever has accumulated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from google.protobuf.message import DecodeError
from grpc import StatusCode

from tidegate.http2.grpc_status import Status
from tidegate.http2.messages import framed
from tidegate.http2.metadata import Metadata
from tidegate.http2.server import Handler
from tidegate.http2.server_call import ServerCall, time_left_s
from tidegate.inference.v1 import inference_service_pb2
from tidegate.rpc.http2_calls import served
from tidegate.rpc.running_calls import RunningCalls
from tidegate.rpc.served_calls import ServedCalls
from tidegate.rpc.status import Violation
from tidegate.worker.v1 import worker_service_pb2
from worker.engine import Wait
from worker.errors import InvalidJobError, to_rpc
from worker.service import WorkerService, finished_trailers

_LOGGER = logging.getLogger(__name__)

_GENERATE = "tidegate.worker.v1.WorkerService/Generate"


class Http2Service:
    """The part of ``tidegate.worker.v1.WorkerService`` that carries tokens."""

    def __init__(self, service: WorkerService, running: RunningCalls) -> None:
        self._service = service
        self._running = running

    def handlers(self, calls: ServedCalls) -> Mapping[str, Handler]:
        """By full method name."""
        return {f"/{_GENERATE}": served(_GENERATE, self._serve, calls, to_rpc=to_rpc, logger=_LOGGER)}

    async def _serve(self, call: ServerCall) -> Status:
        def send(responses: tuple[inference_service_pb2.GenerateResponse, ...]) -> Wait | None:
            # In one frame: the first token goes with Started, and the last one with Finished.
            frames = b"".join([framed(response.SerializeToString()) for response in responses])
            return None if call.send_frames(frames) else call.drained

        with self._running.hold():
            request = _parsed(await call.receive_only())
            finished = await self._service.generate(
                request, time_left_s(call), send_head=partial(_send_head, call), send=send
            )
        return Status(code=StatusCode.OK, metadata=finished_trailers(finished))


async def _send_head(call: ServerCall, metadata: Metadata) -> None:
    call.send_initial_metadata(metadata)


def _parsed(message: bytes) -> worker_service_pb2.GenerateRequest:
    try:
        return worker_service_pb2.GenerateRequest.FromString(message)
    except DecodeError as error:
        raise InvalidJobError([Violation(field="", description="is not a GenerateRequest")]) from error
