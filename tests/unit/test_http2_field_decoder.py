from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

import pytest
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple

from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.field_decoder import FieldDecoder
from tidegate.http2.field_literals import shared_opening
from tidegate.http2.fields import EncodedFields, Field, encode
from tidegate.http2.limits import Limits
from tidegate.http2.request_head import request_fields
from tidegate.http2.transport import Flusher


def _of_call(number: int) -> tuple[float, tuple[tuple[str, str], ...]]:
    """A deadline and a place in a trace of its own."""
    return 1 / number, (("traceparent", f"00-{number:032x}-{number:016x}-01"),)


def _head(number: int) -> Sequence[Field]:
    """As a gateway sends it to a worker."""
    timeout_s, metadata = _of_call(number)
    return request_fields("/Service/Method", authority="a:1", is_tls=False, metadata=metadata, timeout_s=timeout_s)


def _without_hpack(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(Decoder, "decode", decode)


def test_what_is_new_with_each_call_does_not_make_its_section_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two calls it is known how those of a method begin, and hpack is not asked again."""
    decoder = FieldDecoder(Limits())
    for number in (1, 2):
        decoder.decode(encode(_head(number)))
    _without_hpack(monkeypatch)
    for number in (3, 4, 5):
        assert _head(number) == list(decoder.decode(encode(_head(number))).fields)


def test_so_it_is_with_peers_that_have_put_their_fields_into_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of gRPC's own do, with all but the application's metadata."""
    encoder, decoder = Encoder(), FieldDecoder(Limits())

    def block(number: int) -> bytes:
        *kept, parent, _timeout = _head(number)
        return encoder.encode([*kept, NeverIndexedHeaderTuple(*parent)], huffman=False)

    for number in (1, 2, 3):  # of which the first fills the table
        decoder.decode(block(number))
    _without_hpack(monkeypatch)
    assert _head(4)[-2] == decoder.decode(block(4)).fields[-1]


def test_metadata_that_all_calls_have_is_a_part_of_how_they_begin() -> None:
    """Such as that of calls which are not recorded: then only the deadline has to be read."""
    decoder, metadata = FieldDecoder(Limits()), (("traceparent", "00-1-1-00"),)
    heads = [
        request_fields("/Service/Method", authority="a:1", is_tls=False, metadata=metadata, timeout_s=1 / number)
        for number in (1, 2, 3)
    ]
    blocks = [encode(head) for head in heads]
    assert heads == [list(decoder.decode(block).fields) for block in blocks]
    count, _ = shared_opening(blocks[0], blocks[1])
    assert len(heads[0]) - 1 == count


async def test_a_channel_sends_the_heads_of_all_calls_as_they_are_written() -> None:
    """It keeps what those of a method begin with."""
    channel = Channel(
        Endpoint(role=Role.CLIENT, clock=float), Target(host="a", port=1), flusher=Flusher(asyncio.get_running_loop())
    )
    for number in (1, 2):
        timeout_s, metadata = _of_call(number)
        head = channel.head("/Service/Method", metadata=metadata, timeout_s=timeout_s)
        assert EncodedFields.of(_head(number)) == head
