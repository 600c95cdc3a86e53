from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantizer.calibration.documents import BUILT_IN, SKETCH_FORMAT, Document, read_corpus
from quantizer.calibration.histogram import Histogram
from quantizer.errors import CalibrationError
from quantizer.evaluation.held_out import read_held_out

_CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def _write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_reads_chats_and_texts_from_lines_of_json(tmp_path: Path) -> None:
    """Each line is a chat or a text; empty lines are skipped."""
    path = tmp_path / "calibration.jsonl"
    path.write_text(f'{json.dumps(_CHAT)}\n\n{{"text": "Some words."}}\n', encoding="utf-8")
    documents = read_corpus(path).documents
    assert (Document(messages=tuple(_CHAT["messages"])), Document(text="Some words.")) == tuple(documents)


def test_reads_plain_text_by_paragraph(tmp_path: Path) -> None:
    """A blank line ends a document."""
    path = tmp_path / "book.txt"
    path.write_text("One.\nStill one.\n\n  \nTwo.\n", encoding="utf-8")
    assert ["One.\nStill one.", "Two.\n"] == [document.text for document in read_corpus(path).documents]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        '{"text": " "}',
        '{"messages": []}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "user", "content": 7}]}',
        pytest.param("[" * 20_000, id="nested"),
        pytest.param('{"text": ' + "1" * 5_000 + "}", id="endless number"),
        pytest.param('{"text": "cut \\ud83d"}', id="half of an emoji"),
    ],
)
def test_names_the_line_at_fault(tmp_path: Path, line: str) -> None:
    """A line that is neither a chat nor a text is refused by number, and nothing is skipped in silence."""
    path = tmp_path / "calibration.jsonl"
    path.write_text(f"{json.dumps(_CHAT)}\n{line}\n", encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"calibration\.jsonl:2: "):
        read_corpus(path)


def test_a_line_of_json_ends_at_a_line_feed(tmp_path: Path) -> None:
    """Elsewhere a line separator ends one, too; in JSON it may stand as it is."""
    path = tmp_path / "calibration.jsonl"
    path.write_text('{"text": "One.\u2028Two."}\n', encoding="utf-8")
    assert ["One.\u2028Two."] == [document.text for document in read_corpus(path).documents]


def test_an_empty_held_out_set_is_refused(tmp_path: Path) -> None:
    """Whatever it is compared on nothing would pass."""
    with pytest.raises(CalibrationError, match=r"empty\.txt holds nothing to judge by"):
        read_held_out(_write(tmp_path / "empty.txt"))


def test_a_sketch_brings_its_reservoir_and_histogram(tmp_path: Path) -> None:
    """A gateway's sketch with a reservoir holds both the documents and what to match."""
    histogram = Histogram({(1, 1): 30, (4, 2): 10})
    sketch = {"format": SKETCH_FORMAT, "histogram": histogram.to_json(), "reservoir": [_CHAT]}
    corpus = read_corpus(_write(tmp_path / "sketch.json", sketch))
    assert [Document(messages=tuple(_CHAT["messages"]))] == list(corpus.documents)
    assert histogram == corpus.traffic


def test_a_sketch_without_text_lends_its_histogram_to_the_built_in_set(tmp_path: Path) -> None:
    """A gateway that keeps no text still decides the mix."""
    sketch = {"format": SKETCH_FORMAT, "histogram": Histogram({(1, 1): 3}).to_json()}
    corpus = read_corpus(_write(tmp_path / "sketch.json", sketch))
    assert read_corpus(None).documents == corpus.documents
    assert corpus.traffic is not None


@pytest.mark.parametrize(
    "sketch",
    [
        {"format": "other/1"},
        {"format": SKETCH_FORMAT},
        {"format": SKETCH_FORMAT, "histogram": {"prompt_token_edges": [1], "turn_edges": [1], "counts": []}},
        {"format": SKETCH_FORMAT, "histogram": Histogram({}).to_json() | {"counts": [[-1]]}},
    ],
)
def test_refuses_a_sketch_of_another_form(tmp_path: Path, sketch: dict[str, object]) -> None:
    """Buckets with other edges cannot be compared, so they are not guessed at."""
    with pytest.raises(CalibrationError):
        read_corpus(_write(tmp_path / "sketch.json", sketch))


def test_a_missing_file_is_a_refusal_and_not_a_traceback(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(CalibrationError, match="nowhere"):
        read_corpus(tmp_path / "nowhere.jsonl")


def test_normalizing_ignores_case_and_white_space_but_not_roles() -> None:
    """Two documents with the same words said by the same people are one."""
    one = Document(messages=({"role": "user", "content": "Hello  World"},))
    two = Document(messages=({"role": "user", "content": "hello\nworld "},))
    three = Document(messages=({"role": "system", "content": "hello world"},))
    assert one.normalized() == two.normalized()
    assert one.normalized() != three.normalized()


def test_the_built_in_sets_do_not_overlap() -> None:
    """What a checkpoint is judged by is not what it was calibrated on."""
    calibration = {document.normalized() for document in read_corpus(BUILT_IN).documents}
    prompts = {document.messages[-2]["content"] for document in read_corpus(BUILT_IN).documents if document.messages}
    held_out = read_held_out(None)
    assert not calibration & {document.normalized() for document in held_out}
    assert not prompts & {document.messages[-1]["content"] for document in held_out if document.messages}
