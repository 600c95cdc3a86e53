"""The receiving half of HPACK on one connection, with a memory for sections that come again."""

from __future__ import annotations

from typing import NamedTuple

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.fields import Fields, has_bad_characters
from tidegate.http2.limits import Abuse, Limits

# Short blocks alone are kept, and few, so that no peer can fill memory with them.
_LONGEST_KEPT_BYTES = 512
_MOST_KEPT = 16
_RESIZE_MASK, _RESIZE = 0xE0, 0x20  # RFC 7541, section 6.3


class _WatchedTable(HeaderTable):
    """hpack's table, counting its insertions: between two of them equal blocks mean equal fields."""

    insertions = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Insert an entry."""
        self.insertions += 1
        super().add(name, value)


class Decoded(NamedTuple):
    """A field section, and whether a name or value in it holds what it must not."""

    fields: Fields
    has_bad_characters: bool


class FieldDecoder:
    """Decodes field sections in the order in which they come.

    A client that makes the same call again sends the same few bytes again, all of them references into the table.
    """

    __slots__ = ("_decoder", "_kept", "_kept_at", "_table")

    def __init__(self, limits: Limits) -> None:
        """Lists that decode to more than the limits' bound end the connection."""
        self._decoder = Decoder(max_header_list_size=limits.max_decoded_header_bytes)
        self._table = self._decoder.header_table = _WatchedTable()
        self._kept: dict[bytes, Decoded] = {}
        self._kept_at = 0

    def decode(self, block: bytes) -> Decoded:
        """The fields of ``block``. Raises ``Http2ConnectionError``: HPACK's state does not survive an error."""
        decoded = self._kept.get(block)
        if decoded is None:
            fields = self._decode(block)
            decoded = Decoded(fields, has_bad_characters(fields))
            # A change of the table's size can only stand at the beginning (RFC 7541, section 4.2).
            is_resize = block[:1] and block[0] & _RESIZE_MASK == _RESIZE
            if is_resize or self._kept_at != self._table.insertions or len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
                self._kept_at = self._table.insertions
            elif len(block) <= _LONGEST_KEPT_BYTES:
                self._kept[block] = decoded
        return decoded

    def _decode(self, block: bytes) -> Fields:
        try:
            return tuple(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise Http2ConnectionError(
                ErrorCode.ENHANCE_YOUR_CALM, "header list too large", abuse=Abuse.OVERSIZE_HEADER_LIST
            ) from error
        except HPACKError as error:
            raise Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, str(error)) from error
