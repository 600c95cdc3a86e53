"""Calibration by its invariants: nothing is cut, nothing is lost uncounted, the mix is that of the traffic."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from quantizer.calibration.histogram import Histogram, bucket_of, population_stability_index
from quantizer.calibration.packing import pack
from quantizer.calibration.sampling import sample
from quantizer.calibration.tokens import TokenizedDocument

_PAD = 999


@st.composite
def _documents(draw: st.DrawFn) -> list[TokenizedDocument]:
    """Documents whose tokens tell which document they are of."""
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=40))
    return [
        TokenizedDocument(
            token_ids=(number,) * length, prompt_tokens=draw(st.integers(1, 20_000)), turns=draw(st.integers(0, 8))
        )
        for number, length in enumerate(lengths)
    ]


_counts = st.dictionaries(st.tuples(st.integers(0, 10), st.integers(0, 4)), st.integers(1, 1000), max_size=20)


@given(_documents(), st.integers(1, 12), st.integers(8, 40))
def test_blocks_have_exactly_the_length_asked_for(
    documents: list[TokenizedDocument], samples: int, length: int
) -> None:
    """Whatever goes in, every block has as many tokens, positions and mask entries as the recipe says."""
    blocks = pack(documents, samples=samples, length=length, pad_id=_PAD)
    assert len(blocks.token_ids) <= samples
    assert {length} >= {len(row) for rows in (blocks.token_ids, blocks.positions, blocks.mask) for row in rows}


@given(_documents(), st.integers(1, 12), st.integers(8, 40))
def test_no_document_that_fits_into_a_block_is_cut(
    documents: list[TokenizedDocument], samples: int, length: int
) -> None:
    """A document of at most a block's length stands in one block, whole and in one piece, or nowhere."""
    blocks = pack(documents, samples=samples, length=length, pad_id=_PAD)
    for number, document in enumerate(documents):
        if len(document.token_ids) <= length:
            places = [
                (i, j) for i, row in enumerate(blocks.token_ids) for j, token in enumerate(row) if token == number
            ]
            assert len(places) in {0, len(document.token_ids)}
            assert all(right == (left[0], left[1] + 1) for left, right in pairwise(places))


@given(_documents(), st.integers(1, 12), st.integers(8, 40))
def test_every_document_starts_at_position_zero(documents: list[TokenizedDocument], samples: int, length: int) -> None:
    """Positions count up inside a document and start again with the next one, so that no chat attends to another."""
    blocks = pack(documents, samples=samples, length=length, pad_id=_PAD)
    for tokens, positions in zip(blocks.token_ids, blocks.positions, strict=True):
        for place in range(length):
            is_start = place == 0 or tokens[place] != tokens[place - 1]
            assert positions[place] in ({0} if is_start else {0, positions[place - 1] + 1})


@given(_documents(), st.integers(1, 12), st.integers(8, 40))
def test_padding_is_masked_and_nothing_else_is(documents: list[TokenizedDocument], samples: int, length: int) -> None:
    """The mask is False exactly on padding."""
    blocks = pack(documents, samples=samples, length=length, pad_id=_PAD)
    for tokens, mask in zip(blocks.token_ids, blocks.mask, strict=True):
        assert tuple(token != _PAD for token in tokens) == mask


@given(_documents(), st.integers(1, 12), st.integers(8, 40))
def test_documents_are_placed_or_counted_as_left_out(
    documents: list[TokenizedDocument], samples: int, length: int
) -> None:
    """No document disappears in silence, which is what AutoAWQ does with long ones."""
    blocks = pack(documents, samples=samples, length=length, pad_id=_PAD)
    placed = {token for row in blocks.token_ids for token in row} - {_PAD}
    assert len(documents) == len(placed) + blocks.left_out


@given(_documents(), _counts, st.integers(1, 2000), st.integers())
def test_sampling_is_decided_by_the_seed(
    documents: list[TokenizedDocument], counts: dict[tuple[int, int], int], budget: int, seed: int
) -> None:
    """The same seed draws the same documents, none twice."""
    draws = [sample(documents, budget_tokens=budget, traffic=Histogram(counts), rng=Random(seed)) for _ in range(2)]
    assert draws[0] == draws[1]
    numbers = [document.token_ids[0] for document in draws[0]]
    assert len(numbers) == len(set(numbers))


@given(_counts.filter(bool), st.integers(1, 60), st.integers())
def test_samples_follow_the_traffic_where_there_is_enough_of_everything(
    counts: dict[tuple[int, int], int], draws: int, seed: int
) -> None:
    """Each bucket has its share of the traffic, within one document, at every budget."""
    lengths, turns = (10, 40, 70, 150, 300, 600, 1500, 3000, 5000, 9000, 20_000), (0, 1, 2, 3, 5)
    documents = [
        TokenizedDocument(token_ids=(0,), prompt_tokens=length, turns=turn)
        for length in lengths
        for turn in turns
        for _ in range(draws)
    ]
    chosen = sample(documents, budget_tokens=draws, traffic=Histogram(counts), rng=Random(seed))
    found = Counter(bucket_of(document.prompt_tokens, document.turns) for document in chosen)
    assert draws == len(chosen)
    total = sum(counts.values())
    # Sainte-Lague can be off by a little more than one seat when there are many parties; by two it never was.
    assert all(abs(found[bucket] - draws * count / total) < 2 for bucket, count in counts.items())


@given(_counts)
def test_histograms_survive_their_json(counts: dict[tuple[int, int], int]) -> None:
    """What the gateway writes into a sketch is what the quantizer reads."""
    assert counts == Histogram.from_json(Histogram(counts).to_json()).counts


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12), st.integers(2, 50))
def test_the_stability_index_of_equal_shares_is_small(counts: list[int], factor: int) -> None:
    """It is zero for equal counts, never negative, and does not depend on how much traffic there was."""
    assert population_stability_index(counts, counts) == 0
    many = [1000 * count + 500 for count in counts]
    assert 0 <= population_stability_index(many, [factor * count for count in many]) < 0.01
