"""Names the beginnings of a prompt, so that two prompts can be compared without their tokens.

A name is no secret and no proof: a collision sends a job to a worker that does not hold its prefix, and no further.
"""

from __future__ import annotations

import xxhash

from tidegate.rpc.token_ids import TOKEN_ID_BYTES

# A name for every so many tokens. A finer step would find a few tokens more; each entry costs memory on every gateway.
_STRIDE_TOKENS = 64
# Longer prefixes are not told apart: with the names so far they share more than any other two prompts do.
_MAX_NAMES = 512


def prefix_stride(block_size: int) -> int:
    """Tokens from one name to the next: whole blocks, for engines share nothing smaller."""
    return -(-_STRIDE_TOKENS // block_size) * block_size


def prefix_names(packed_ids: bytes, stride: int) -> tuple[int, ...]:
    """Names of the first ``stride`` tokens, the first two times ``stride``, and so on."""
    step = stride * TOKEN_ID_BYTES
    names: list[int] = []
    name = 0
    for start in range(0, min(len(packed_ids) // step, _MAX_NAMES) * step, step):
        name = xxhash.xxh3_64_intdigest(packed_ids[start : start + step], seed=name)
        names.append(name)
    return tuple(names)
