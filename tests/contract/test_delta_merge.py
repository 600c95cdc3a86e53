from __future__ import annotations

from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from tidegate.inference.v1 import generation_pb2, inference_service_pb2

_TOKEN_IDS = st.integers(min_value=0, max_value=2**31 - 1)
_LOGPROBS = st.floats(max_value=0, width=32, allow_nan=False)


@st.composite
def token_logprobs(draw: st.DrawFn) -> generation_pb2.TokenLogprob:
    """A log probability with up to three alternatives."""
    message = generation_pb2.TokenLogprob(token_id=draw(_TOKEN_IDS), token=draw(st.text()), logprob=draw(_LOGPROBS))
    for _ in range(draw(st.integers(min_value=0, max_value=3))):
        message.top.add(token_id=draw(_TOKEN_IDS), token=draw(st.text()), logprob=draw(_LOGPROBS))
    return message


@st.composite
def deltas(draw: st.DrawFn) -> generation_pb2.Delta:
    """Any delta, the empty one included."""
    return generation_pb2.Delta(
        text=draw(st.lists(st.text(), max_size=3)),
        token_ids=draw(st.lists(_TOKEN_IDS, max_size=5)),
        logprobs=draw(st.lists(token_logprobs(), max_size=3)),
        prompt_logprobs=draw(st.lists(token_logprobs(), max_size=2)),
    )


@given(st.lists(deltas(), min_size=1, max_size=5))
def test_serialised_deltas_laid_end_to_end_are_their_merge(messages: list[generation_pb2.Delta]) -> None:
    """A relay may merge responses without parsing them, and loses and reorders nothing."""
    merged = generation_pb2.Delta()
    for message in messages:
        merged.MergeFrom(message)
    wire = b"".join(inference_service_pb2.GenerateResponse(delta=message).SerializeToString() for message in messages)
    assert inference_service_pb2.GenerateResponse(delta=merged) == inference_service_pb2.GenerateResponse.FromString(
        wire
    )


def test_every_field_of_delta_is_repeated() -> None:
    """A field that is not repeated would be overwritten by the merge: this is what a new field has to obey."""
    delta: Descriptor = generation_pb2.Delta.DESCRIPTOR
    assert [] == [field.name for field in delta.fields if not field.is_repeated]
