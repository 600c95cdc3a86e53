from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.http2.errors import Http2ConnectionError
from tidegate.http2.field_decoder import FieldDecoder
from tidegate.http2.field_literals import encode_field, read_literals, shared_opening
from tidegate.http2.fields import Field, encode, has_bad_characters
from tidegate.http2.limits import Limits

_names = st.sampled_from([b":path", b":status", b"te", b"x-a", b"x-b-bin", b"grpc-timeout", b"user-agent"])
_values = st.one_of(st.sampled_from([b"", b"200", b"trailers", b"a" * 40]), st.binary(max_size=20))
_sections = st.lists(st.tuples(_names, _values), max_size=6)
# What comes again, and what is new with each call: strings of all lengths that HPACK writes in another way.
_openings = st.lists(st.tuples(_names, _values), min_size=1, max_size=4)
_news = st.lists(
    st.tuples(
        st.one_of(_names, st.sampled_from([b"user-agent", b"traceparent", b"n" * 130]), st.binary(max_size=5)),
        st.one_of(_values, st.binary(min_size=120, max_size=300)),
    ),
    max_size=3,
)
_LIMITS = Limits(max_header_list_bytes=400)
_MAX_LIST_BYTES = _LIMITS.max_decoded_header_bytes


class _Peer:
    """Encodes sections in all ways, and damages some of what it sends."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw
        self._encoder = Encoder()
        self._opening = self._draw(_openings)

    def blocks(self) -> Iterator[bytes]:
        """As of one sender, that has its own way, and calls the same again."""
        draw = self._draw
        if draw(st.booleans()):
            self._opening = draw(_openings)
        way = draw(st.sampled_from([encode, encode, self._by_hpack, self._never_indexed]))
        for _ in range(draw(st.integers(3, 6))):
            block = way([*self._opening, *draw(_news)])
            yield self._damaged(block) if draw(st.integers(0, 9)) == 9 else block

    def _never_indexed(self, section: list[Field]) -> bytes:
        return self._by_hpack([NeverIndexedHeaderTuple(*field) for field in section])

    def _by_hpack(self, section: list[Field]) -> bytes:
        if self._draw(st.integers(0, 9)) == 9:
            self._encoder.header_table_size = self._draw(st.integers(0, 300))
        return self._encoder.encode(section, huffman=self._draw(st.booleans()))

    def _damaged(self, block: bytes) -> bytes:
        at, size = self._draw(st.integers(0, len(block))), self._draw(st.integers(0, 20))
        return block[:at] + self._draw(st.binary(max_size=3)) + block[at + size :]


@given(st.data())
@settings(deadline=None)
def test_what_is_remembered_of_sections_never_changes_what_is_decoded(data: st.DataObject) -> None:
    """Whatever a peer sends, and however it is cut off or damaged: hpack alone gives the same fields, or an error."""
    peer, plain, ours = _Peer(data), Decoder(max_header_list_size=_MAX_LIST_BYTES), FieldDecoder(_LIMITS)
    for block in chain.from_iterable(peer.blocks() for _ in range(data.draw(st.integers(1, 4)))):
        try:
            expected = [tuple(field) for field in plain.decode(block, raw=True)]
        except HPACKError:
            expected = None
        try:
            decoded = ours.decode(block)
        except Http2ConnectionError:
            assert expected is None
            return  # the connection is over
        assert expected == [tuple(field) for field in decoded.fields]
        assert has_bad_characters(decoded.fields) == decoded.has_bad_characters


@given(_sections)
def test_literals_are_read_as_by_hpack_or_left_to_it(section: list[tuple[bytes, bytes]]) -> None:
    """What is new with each call is read here, and not by hpack, wherever it begins."""
    block = b"".join(encode_field(*field) for field in section)
    for count in range(len(section)):
        opening = b"".join(encode_field(*field) for field in section[:count])
        assert section[count:] == read_literals(block, len(opening))


@given(opening=_sections, ends=st.tuples(_sections, _sections))
def test_a_shared_opening_ends_where_a_field_ends(
    opening: list[tuple[bytes, bytes]], ends: tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]
) -> None:
    """As many fields as both have in common, and as many bytes as these take."""
    one, other = ([*opening, *end] for end in ends)
    count = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert (count, len(encode(one[:count]))) == shared_opening(encode(one), encode(other))


@given(sections=st.lists(_sections, max_size=8), resizes=st.lists(st.integers(0, 300), max_size=3))
@settings(deadline=None)
def test_memory_of_sections_never_changes_what_is_decoded(
    sections: list[list[tuple[bytes, bytes]]], resizes: list[int]
) -> None:
    """Whatever the table goes through between two equal blocks, the fields are those of a decoder without memory."""
    encoder, plain, ours = Encoder(), Decoder(), FieldDecoder(Limits())
    turns = [*sections, *sections, *sections]  # so that blocks come again
    for number, section in enumerate(turns):
        if number < len(resizes):
            encoder.header_table_size = resizes[number]
        block = encoder.encode(section, huffman=bool(number % 2))
        assert list(plain.decode(block, raw=True)) == list(ours.decode(block).fields)


@given(_sections)
def test_our_blocks_are_read_by_others(section: list[tuple[bytes, bytes]]) -> None:
    """What is encoded here is plain HPACK, and leaves no trace in the reader's table."""
    decoder = Decoder()
    assert section == [tuple(field) for field in decoder.decode(encode(section), raw=True)]
    assert 0 == len(decoder.header_table.dynamic_entries)


@given(st.binary(min_size=1, max_size=10))
def test_control_characters_are_seen(value: bytes) -> None:
    """NUL, CR, LF anywhere, and blanks at either end."""
    expected = any(byte in b"\x00\r\n" for byte in value) or value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t")
    assert expected == has_bad_characters([(b"x", value)])
