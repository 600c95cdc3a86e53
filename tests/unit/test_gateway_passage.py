from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.passage import Passage, messages_of
from gateway.workers.errors import WorkerCallError
from tests.fakes.scripted_worker import answer, beginning
from tidegate.http2.messages import framed
from tidegate.inference.v1 import generation_pb2, inference_service_pb2

Response = inference_service_pb2.GenerateResponse


def delta(token_ids: Sequence[int]) -> bytes:
    """A framed message with these tokens."""
    return framed(Response(delta=generation_pb2.Delta(token_ids=token_ids)).SerializeToString())


@given(
    deltas=st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=40), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_every_token_that_was_passed_on_is_remembered(deltas: list[list[int]], cuts: list[int]) -> None:
    """In order and once each, however the messages were put into chunks and whenever they are asked for."""
    passage = Passage()
    begin = framed(beginning()[0].SerializeToString())
    pending = [begin, *map(delta, deltas)]
    sent = 0
    for cut in [*sorted(cuts), len(pending)]:
        chunk = b"".join(pending[sent:cut])
        if chunk:
            assert chunk == passage.pass_on(chunk)
            assert sum(map(len, deltas[: cut - 1])) == passage.tokens
        sent = max(sent, cut)
    assert [token for tokens in deltas for token in tokens] == list(passage.token_ids)


def test_what_is_kept_of_a_long_stream_is_its_tokens() -> None:
    """Four bytes a token, and a few kilobytes that were not read yet."""
    passage = Passage()
    for token in range(20_000):
        passage.pass_on(delta([token % 100]))
    assert len(passage._unread) <= 2 * 4096
    assert 20_000 == passage.tokens


def test_a_passage_ends_with_what_the_worker_said_last() -> None:
    """Finished is read from the last message, wherever in a chunk it stands."""
    passage = Passage()
    passage.pass_on(b"".join(framed(response.SerializeToString()) for response in answer("a", "b")))  # type: ignore[union-attr]
    passage.end()
    assert passage.finished is not None
    assert 2 == passage.tokens


@pytest.mark.parametrize("chunks", [[], [delta([1])], [framed(b"")]])
def test_ok_without_finished_is_an_error(chunks: list[bytes]) -> None:
    """Also when nothing came at all."""
    passage = Passage()
    for chunk in chunks:
        passage.pass_on(chunk)
    with pytest.raises(WorkerCallError):
        passage.end()


def test_messages_are_cut_at_their_prefixes() -> None:
    """Empty ones count, too."""
    assert [b"", b"abc", b""] == list(messages_of(framed(b"") + framed(b"abc") + framed(b"")))
