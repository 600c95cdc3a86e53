"""Token ids on their way from a gateway's tokenizer to an engine: four bytes each, the least significant first.

Nobody between the two looks at them one by one, so that they become numbers only where an engine asks for numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

TOKEN_ID_BYTES = 4


def packed(token_ids: Sequence[int]) -> bytes:
    """The bytes of ``token_ids``, all of which are of 0 to 2**32 - 1."""
    return struct.pack(f"<{len(token_ids)}I", *token_ids)


def unpacked(packed_ids: bytes) -> list[int]:
    """The ids again. Raises ``ValueError`` where the last one is not whole."""
    if len(packed_ids) % TOKEN_ID_BYTES:
        raise ValueError(f"{len(packed_ids)} bytes are no whole number of token ids")
    return list(struct.unpack(f"<{len(packed_ids) // TOKEN_ID_BYTES}I", packed_ids))
