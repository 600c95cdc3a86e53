from __future__ import annotations

from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.http2.field_decoder import FieldDecoder
from tidegate.http2.fields import encode, has_bad_characters
from tidegate.http2.limits import Limits

_names = st.sampled_from([b":path", b":status", b"te", b"x-a", b"x-b-bin", b"grpc-timeout", b"user-agent"])
_values = st.one_of(st.sampled_from([b"", b"200", b"trailers", b"a" * 40]), st.binary(max_size=20))
_sections = st.lists(st.tuples(_names, _values), max_size=6)


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
