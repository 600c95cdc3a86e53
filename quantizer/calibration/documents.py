"""Read calibration documents: chats, plain text, or the reservoir of a traffic sketch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantizer.calibration.histogram import Histogram
from quantizer.errors import CalibrationError

SKETCH_FORMAT = "tidegate.traffic-sketch/1"
BUILT_IN = Path(__file__).parent.parent / "data" / "calibration.jsonl"

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A chat (``messages``) or a plain text (``text``); never both."""

    messages: tuple[Message, ...] = ()
    text: str = ""

    def normalized(self) -> str:
        """What makes two documents the same: roles and words, not case or white space."""
        parts = [f"{message['role']}: {message['content']}" for message in self.messages] or [self.text]
        return "\n".join(" ".join(part.casefold().split()) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The documents to choose from, and the traffic that the choice should look like where it is known."""

    documents: Sequence[Document]
    traffic: Histogram | None = None


def read_corpus(path: Path | None) -> Corpus:
    """Read ``.jsonl`` (a chat or a text on each line), ``.json`` (a traffic sketch) or plain text (paragraphs).

    Without a path it is the built-in set. A sketch without a reservoir lends its histogram to the built-in set.
    Raises ``CalibrationError`` with the line at fault.
    """
    path = path or BUILT_IN
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: {error}") from error
    if path.suffix == ".json":
        return _parse_sketch(path, content)
    if path.suffix == ".jsonl":
        return Corpus(documents=tuple(_parse_lines(path, content)))
    return Corpus(documents=tuple(Document(text=part) for part in re.split(r"\n\s*\n", content) if part.strip()))


def _parse_sketch(path: Path, content: str) -> Corpus:
    sketch = _parse_object(str(path), content)
    if sketch.get("format") != SKETCH_FORMAT:
        raise CalibrationError(f'{path}: "format" must be "{SKETCH_FORMAT}", not {sketch.get("format")!r}')
    traffic = Histogram.from_json(sketch.get("histogram"))
    kept = sketch.get("reservoir") or []
    if not isinstance(kept, list):
        raise CalibrationError(f"{path}: reservoir: a list is expected")
    reservoir = [_to_document(f"{path}: reservoir[{i}]", entry) for i, entry in enumerate(kept)]
    return Corpus(documents=reservoir or read_corpus(None).documents, traffic=traffic)


def _parse_lines(path: Path, content: str) -> Iterator[Document]:
    for number, line in enumerate(content.split("\n"), start=1):  # not splitlines: JSON may hold U+2028 as it is
        if line.strip():
            yield _to_document(f"{path}:{number}", _parse_object(f"{path}:{number}", line))


def _parse_object(place: str, content: str) -> Mapping[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{place}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CalibrationError(f"{place}: a JSON object is expected")
    return value


def _to_document(place: str, value: Any) -> Document:
    match value:
        case {"messages": [_, *_] as messages} if all(_is_message(message) for message in messages):
            document = Document(messages=tuple(messages))
        case {"text": str(text)} if text.strip():
            document = Document(text=text)
        case _:
            raise CalibrationError(f'{place}: needs "messages" (each with a "role" and a "content" string) or a "text"')
    try:
        document.normalized().encode()
    except UnicodeEncodeError as error:  # what was cut in the middle of an emoji
        raise CalibrationError(f"{place}: half of a surrogate pair, which no tokenizer takes: {error}") from error
    return document


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))
