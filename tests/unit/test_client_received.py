from __future__ import annotations

from tidegate.client.received import Received
from tidegate.inference.v1 import generation_pb2, inference_service_pb2

Response = inference_service_pb2.GenerateResponse
_REQUEST = inference_service_pb2.GenerateRequest(model="m", text="hi")


def _started(token: str) -> Response:
    return Response(started=generation_pb2.Started(resume_token=token))


def _delta(text: str, *token_ids: int) -> Response:
    return Response(delta=generation_pb2.Delta(text=[text], token_ids=token_ids))


def test_what_was_received_over_all_calls_is_told() -> None:
    """Tokens, bytes of text, and the latest token; the request itself stays as it is."""
    received = Received()
    for response in (_started("a"), _delta("é", 1), _started("b"), _delta("x", 2, 3)):
        received.take(response)
    request = received.request(_REQUEST)

    assert ("b", [1, 2, 3], 3) == (request.resume.token, list(request.resume.token_ids), request.resume.text_byte_count)
    assert not _REQUEST.HasField("resume")


def test_only_the_first_started_is_an_event() -> None:
    """A reader sees one answer, however many calls it took."""
    received = Received()
    assert received.take(_started("a"))
    assert received.take(_started("b")) is None


def test_without_a_token_nothing_can_be_resumed() -> None:
    """The server does not offer it."""
    received = Received()
    received.take(_started(""))
    received.take(_delta("x", 1))
    assert (False, _REQUEST) == (received.can_resume, received.request(_REQUEST))
