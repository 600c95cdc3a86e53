"""Fields as literals that leave no trace in the reader's table (RFC 7541, sections 6.2.2 and 6.2.3).

That is the form of what is new with each call: deadlines, trace contexts, ids. Read and written here is what is usual,
strings of less than 127 bytes that are not Huffman-coded; the rest is hpack's, to which all of this is equal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from hpack import Encoder
from hpack.table import HeaderTable

# First bytes of fields. Literals that leave a trace, and changes of the table's size, lie between the two.
_LITERALS_END: Final = 0x20
_INDEXED: Final = 0x80
# Numbers: all ones in the first byte say that they go on in the next one.
_NAME_ONES: Final = 0x0F
_ONES: Final = 0x7F
_MORE: Final = 0x80  # of a number's further byte
_HUFFMAN: Final = 0x80  # of a string's first byte
_STATIC_NAMES: Final = (b"", *(name for name, _ in HeaderTable.STATIC_TABLE))
_LONGEST_KEPT_NAME: Final = 64
_LENGTHS: Final = tuple(bytes((length,)) for length in range(_ONES))
_ENCODER = Encoder()  # keeps no state, since every field is encoded as never indexed


def encode_field(name: bytes, value: bytes) -> bytes:
    """A field that no reader keeps."""
    if len(value) >= _ONES or len(name) > _LONGEST_KEPT_NAME:
        return encode_by_hpack(name, value)
    return _encoded_name(name) + _LENGTHS[len(value)] + value


@lru_cache(maxsize=1024)
def _encoded_name(name: bytes) -> bytes:
    return encode_by_hpack(name, b"\0")[:-2]  # a value that is in no table


def encode_by_hpack(name: bytes, value: bytes) -> bytes:
    """The same; one that is in the static table takes a byte."""
    # "Sensitive" is hpack's word for never indexed. Huffman coding costs more CPU than the bytes it saves.
    return _ENCODER.add((name, value), sensitive=True, huffman=False)


def read_literals(block: bytes, at: int) -> list[tuple[bytes, bytes]] | None:
    """The fields of ``block`` from ``at`` on; None where not all of them are such as are usual here."""
    fields = []
    while at < len(block):
        name_index = block[at]
        if name_index >= _LITERALS_END:
            return None
        name_index &= _NAME_ONES
        at += 1
        if not name_index:
            end = _string_end(block, at)
            if not end or block[at] & _HUFFMAN:
                return None
            name = block[at + 1 : end]
            at = end
        else:
            if name_index == _NAME_ONES:
                if at == len(block):
                    return None
                name_index += block[at]
                at += 1
            if name_index >= len(_STATIC_NAMES):
                return None
            name = _STATIC_NAMES[name_index]
        end = _string_end(block, at)
        if not end or block[at] & _HUFFMAN:
            return None
        fields.append((name, block[at + 1 : end]))
        at = end
    return fields


def shared_opening(block: bytes, other: bytes) -> tuple[int, int]:
    """With how many fields both blocks begin alike, in the same bytes, and how many bytes that are."""
    at = count = 0
    while True:
        end = _field_end(block, at)
        if not end or block[at:end] != other[at:end]:
            return count, at
        at = end
        count += 1


def _field_end(block: bytes, at: int) -> int:
    """Where the field at ``at`` ends; 0 where it is cut off, leaves a trace, or has numbers of several bytes."""
    if at >= len(block):
        return 0
    first = block[at]
    at += 1
    if first >= _INDEXED:
        return at if first & _ONES != _ONES else 0
    if first >= _LITERALS_END:
        return 0
    if first & _NAME_ONES == _NAME_ONES:
        if at == len(block) or block[at] >= _MORE:
            return 0
        at += 1
    elif not first & _NAME_ONES:
        at = _string_end(block, at)
        if not at:
            return 0
    return _string_end(block, at)


def _string_end(block: bytes, at: int) -> int:
    """Where the string ends that begins with its length at ``at``; 0 where it is cut off, or that has several bytes."""
    if at >= len(block):
        return 0
    length = block[at] & _ONES
    end = at + 1 + length
    return end if length != _ONES and end <= len(block) else 0
