"""What a client has received of an answer: enough to go on with it on another connection."""

from __future__ import annotations

from tidegate.inference.v1 import generation_pb2, inference_service_pb2

Event = generation_pb2.Started | generation_pb2.Delta | generation_pb2.Finished


class Received:
    """One answer, over all calls that it takes."""

    def __init__(self) -> None:
        self.has_begun = self.has_finished = False
        self._token = ""
        self._token_ids: list[int] = []
        self._text_bytes = 0
        self._seen_at_last_call = -1

    @property
    def can_resume(self) -> bool:
        """Whether another call may go on: the server gave a token, and something came."""
        return bool(self._token) and bool(self._token_ids)

    @property
    def has_progressed(self) -> bool:
        """Whether something has come since the latest call began."""
        return len(self._token_ids) > self._seen_at_last_call

    def take(self, response: inference_service_pb2.GenerateResponse) -> Event | None:
        """The event that ``response`` brings; None for the Started of a further call, and for what is not known."""
        match response.WhichOneof("event"):
            case "started":
                is_first, self.has_begun = not self.has_begun, True
                self._token = response.started.resume_token
                return response.started if is_first else None
            case "delta":
                if self._token:
                    self._token_ids.extend(response.delta.token_ids)
                    self._text_bytes += sum(len(piece.encode()) for piece in response.delta.text)
                return response.delta
            case "finished":
                self.has_finished = True
                return response.finished
        return None

    def request(self, request: inference_service_pb2.GenerateRequest) -> inference_service_pb2.GenerateRequest:
        """``request`` as it has to be sent next: as it stands, or going on behind what was received."""
        self._seen_at_last_call = len(self._token_ids)
        if not self.can_resume:
            return request
        resuming = inference_service_pb2.GenerateRequest()
        resuming.CopyFrom(request)
        resuming.resume.token = self._token
        resuming.resume.token_ids[:] = self._token_ids
        resuming.resume.text_byte_count = self._text_bytes
        return resuming
