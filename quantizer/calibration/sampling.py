"""Choose documents so that their lengths and turns are distributed as in the traffic; the seed decides which ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

from quantizer.calibration.histogram import Bucket, Histogram, bucket_of
from quantizer.calibration.tokens import TokenizedDocument


def sample(
    documents: Sequence[TokenizedDocument], *, budget_tokens: int, traffic: Histogram | None, rng: Random
) -> list[TokenizedDocument]:
    """Draw without replacement until ``budget_tokens`` are reached or nothing is left that the traffic has.

    Each draw serves the bucket that lags furthest behind its share, so that any prefix of the result is stratified too.
    A bucket of the traffic without documents left is passed over. Without ``traffic`` the documents' own mix is kept.
    """
    strata: dict[Bucket, list[TokenizedDocument]] = defaultdict(list)
    for document in documents:
        strata[bucket_of(document.prompt_tokens, document.turns)].append(document)
    for bucket in sorted(strata):
        rng.shuffle(strata[bucket])
    wanted = traffic.counts if traffic else {bucket: len(members) for bucket, members in strata.items()}
    chosen: list[TokenizedDocument] = []
    taken: dict[Bucket, int] = defaultdict(int)
    tokens = 0
    while tokens < budget_tokens:
        available = [bucket for bucket in sorted(strata) if strata[bucket] and wanted.get(bucket)]
        if not available:
            break
        # The largest-deficit rule of Sainte-Lague: the bucket with the most demand for each document it already has.
        bucket = max(available, key=lambda candidate: wanted[candidate] / (2 * taken[candidate] + 1))
        chosen.append(strata[bucket].pop())
        taken[bucket] += 1
        tokens += len(chosen[-1].token_ids)
    return chosen
