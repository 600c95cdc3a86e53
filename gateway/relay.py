"""What a client has seen of a generation."""

from __future__ import annotations

from grpc import StatusCode

from gateway.workers.errors import WorkerCallError
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.status import WORKER_DOMAIN, RpcError

_UNFINISHED = RpcError(
    code=StatusCode.INTERNAL, reason="ENGINE_ERROR", domain=WORKER_DOMAIN, message="OK without Finished"
)


class Relay:
    """Follows the events of one attempt on their way to the client."""

    def __init__(self) -> None:
        self.has_begun = False
        self.tokens = 0
        self.finished: generation_pb2.Finished | None = None

    def note(self, response: inference_service_pb2.GenerateResponse) -> None:
        """``response`` is about to be sent."""
        self.has_begun = True
        if response.HasField("delta"):
            self.tokens += len(response.delta.token_ids)
        elif response.HasField("finished"):
            self.finished = response.finished

    def end(self) -> None:
        """The worker ended the stream with OK. Raises ``WorkerCallError`` if it did so too early."""
        if self.finished is None:
            raise WorkerCallError(_UNFINISHED)
