"""Pack documents into blocks of one exact length, without cutting a document that fits into a block.

Every document starts at position 0 of its own: the model then attends within it alone, and sees each chat as it sees
one in production. What a block has left is padded, and the padding is kept out of every statistic by ``mask``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantizer.calibration.tokens import TokenizedDocument

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Blocks of equal length. ``positions`` restarts at 0 with every document; ``mask`` is False on padding."""

    token_ids: tuple[TokenIds, ...]
    positions: tuple[TokenIds, ...]
    mask: tuple[tuple[bool, ...], ...]
    left_out: int  # documents for which no block had room
    divided: int  # documents longer than a block, continued in further ones

    def tokens(self) -> int:
        """Tokens that count, padding excluded."""
        return sum(map(sum, self.mask))

    def digest(self) -> str:
        """SHA-256 over ids and positions: what the model will see, whatever file it came from."""
        return hashlib.sha256(repr((self.token_ids, self.positions)).encode()).hexdigest()


def pack(documents: Sequence[TokenizedDocument], *, samples: int, length: int, pad_id: int) -> Blocks:
    """Fill at most ``samples`` blocks of ``length`` tokens: longest piece first, into the first block with room."""
    pieces = [(number, piece) for number, document in enumerate(documents) for piece in _divide(document, length)]
    pieces.sort(key=lambda entry: -len(entry[1]))  # stable: equal lengths stay in the order of sampling
    bins: list[list[TokenIds]] = []
    placed: set[int] = set()
    for number, piece in pieces:
        home = next((bin_ for bin_ in bins if sum(map(len, bin_)) + len(piece) <= length), None)
        if home is None and len(bins) < samples:
            bins.append(home := [])
        if home is not None:
            home.append(piece)
            placed.add(number)
    return Blocks(
        token_ids=tuple(_fill((token for piece in bin_ for token in piece), length, pad_id) for bin_ in bins),
        positions=tuple(_positions(bin_, length) for bin_ in bins),
        mask=tuple(tuple(place < sum(map(len, bin_)) for place in range(length)) for bin_ in bins),
        left_out=len(documents) - len(placed),
        divided=sum(len(document.token_ids) > length for document in documents),
    )


def _divide(document: TokenizedDocument, length: int) -> Iterator[TokenIds]:
    for start in range(0, len(document.token_ids), length):
        yield document.token_ids[start : start + length]


def _fill(tokens: Iterator[int], length: int, pad_id: int) -> TokenIds:
    filled = tuple(tokens)
    return filled + (pad_id,) * (length - len(filled))


def _positions(pieces: Sequence[TokenIds], length: int) -> TokenIds:
    positions = [place for piece in pieces for place in range(len(piece))]
    return (*positions, *range(length - len(positions)))
