"""The receiving half of HPACK on one connection, with a memory for what comes again."""

from __future__ import annotations

from typing import NamedTuple

from hpack import Decoder, HPACKError, OversizedHeaderListError

from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.field_literals import read_literals, shared_opening
from tidegate.http2.field_table import WatchedTable
from tidegate.http2.fields import Fields, has_bad_characters, list_bytes
from tidegate.http2.limits import Abuse, Limits

# Short blocks alone are kept, and few, so that no peer can fill memory with them.
_LONGEST_KEPT_BYTES = 512
_MOST_KEPT = 16
_MOST_OPENINGS = 4
_RESIZE_MASK, _RESIZE = 0xE0, 0x20  # RFC 7541, section 6.3


class Decoded(NamedTuple):
    """A field section, and whether a name or value in it holds what it must not."""

    fields: Fields
    has_bad_characters: bool


class _Opening(NamedTuple):
    """How several blocks have begun."""

    block: bytes
    decoded: Decoded
    list_bytes: int


class FieldDecoder:
    """Decodes field sections in the order in which they come.

    A client that makes the same call again sends the same few bytes again, all of them references into the table. What
    is new with each call, its deadline or its place in a trace, stands behind them as literals, if senders are good.
    """

    __slots__ = ("_decoder", "_kept", "_kept_at", "_last", "_max_list_bytes", "_openings", "_table")

    def __init__(self, limits: Limits) -> None:
        """Lists that decode to more than the limits' bound end the connection."""
        self._max_list_bytes = limits.max_decoded_header_bytes
        self._decoder = Decoder(max_header_list_size=self._max_list_bytes)
        self._table = self._decoder.header_table = WatchedTable()
        self._kept_at = 0  # insertions into the table; all that is kept is of this state of it
        self._kept: dict[bytes, Decoded] = {}
        self._openings: list[_Opening] = []  # the longest first
        self._last: bytes | None = None  # block that nothing was known of

    def decode(self, block: bytes) -> Decoded:
        """The fields of ``block``. Raises ``Http2ConnectionError``: HPACK's state does not survive an error."""
        decoded = self._kept.get(block)
        if decoded is None:
            decoded = self._continued(block)
        if decoded is None:
            fields = self._decode(block)
            decoded = Decoded(fields, has_bad_characters(fields))
            # A change of the table's size can only stand at the beginning (RFC 7541, section 4.2).
            is_resize = block[:1] and block[0] & _RESIZE_MASK == _RESIZE
            if is_resize or self._kept_at != self._table.insertions:
                self._kept_at = self._table.insertions
                self._kept.clear()
                self._openings.clear()
                self._last = None
            elif len(block) <= _LONGEST_KEPT_BYTES:
                self._keep(block, decoded)
        return decoded

    def _continued(self, block: bytes) -> Decoded | None:
        """The fields of a block that begins as others, and goes on in literals that leave the table as it is."""
        for opening in self._openings:
            if block.startswith(opening.block):
                more = read_literals(block, len(opening.block))
                if more is not None and opening.list_bytes + list_bytes(more) <= self._max_list_bytes:
                    begun = opening.decoded
                    return Decoded((*begun.fields, *more), begun.has_bad_characters or has_bad_characters(more))
        return None

    def _keep(self, block: bytes, decoded: Decoded) -> None:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[block] = decoded
        last, self._last = self._last, block
        if last is None:
            return
        count, size = shared_opening(block, last)
        if not count or any(opening.block == block[:size] for opening in self._openings):
            return
        fields = decoded.fields[:count]
        if len(self._openings) >= _MOST_OPENINGS:
            self._openings.clear()
        opened = Decoded(fields, has_bad_characters(fields))
        self._openings.append(_Opening(block[:size], opened, list_bytes(fields)))
        self._openings.sort(key=lambda opening: -len(opening.block))

    def _decode(self, block: bytes) -> Fields:
        try:
            return tuple(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise Http2ConnectionError(
                ErrorCode.ENHANCE_YOUR_CALM, "header list too large", abuse=Abuse.OVERSIZE_HEADER_LIST
            ) from error
        except HPACKError as error:
            raise Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, str(error)) from error
