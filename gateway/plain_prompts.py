"""Token ids of conversations of which a template only shows the contents: only what callers wrote has to be encoded.

Such a template writes the same around all contents of the same roles (gateway/plain_template.py). What it writes is
encoded once, and a prompt is what lies between its added tokens, stretch by stretch: from the last one before a content
to the first one behind it. An added token of the template stands where it does whatever the contents are, as long as
none can begin before it and reach into it, nor be continued by what comes behind: ``stand_alone`` knows that of the
tokens themselves.

That keeps the rule of gateway/renderer.py. Where no added token stands in any stretch, nor a special one is among its
ids, the special tokens of the prompt are those that the template writes around any contents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gateway.chat import Chat, plain_roles
from gateway.segment_cache import SegmentCache
from gateway.token_pattern import longest_of

_MAX_OUTLINES, _MAX_MESSAGES = 256, 64
# Longer prompts are left to the template, which knows how much is too much.
_MAX_CHARACTERS = 1 << 20


def stand_alone(tokens: Collection[str]) -> bool:
    """Whether none of ``tokens`` can overlap another one in a text, and none holds a blank."""
    starts = re.compile(f"[{''.join(re.escape(token[0]) for token in tokens)}]") if tokens else None
    return not any(
        (starts and starts.search(token, 1))
        or any(character.isspace() for character in token)
        or any(other != token and other.startswith(token) for other in tokens)
        for token in tokens
    )


@dataclass(slots=True, kw_only=True, init=False)
class _Stretch:
    """Contents, by their messages' places, with the ``texts`` around them; then ``behind``, the ids up to the next."""

    texts: list[str]
    places: list[int]
    behind: bytes

    def __init__(self, *, texts: list[str], places: list[int], behind: bytes) -> None:
        self.texts = texts
        self.places = places
        self.behind = behind


@dataclass(slots=True, kw_only=True, init=False)
class _Outline:
    """What the template writes around contents: ``start``, the ids up to the first stretch, and all stretches.

    ``is_usable`` is False where ids that the vocabulary makes of the template's own text are special.
    """

    start: bytes
    stretches: list[_Stretch]
    is_usable: bool

    def __init__(self, *, start: bytes, stretches: list[_Stretch], is_usable: bool) -> None:
        self.start = start
        self.stretches = stretches
        self.is_usable = is_usable


class PlainPrompts:
    """Those of one model. Safe to use from several threads."""

    def __init__(
        self, segments: SegmentCache, dividers: Sequence[str], outline: Callable[[tuple[str, ...], bool], Sequence[str]]
    ) -> None:
        """``dividers`` are all added tokens, and ``stand_alone``.

        ``outline`` gives the template's texts for roles and add_generation_prompt, the number of a content between each
        two. It raises ``ChatTemplateRejectedError``.
        """
        self._segments = segments
        self._dividers = re.compile(longest_of(dividers))
        self._outline = outline
        self._outlines: dict[tuple[bool, tuple[str, ...]], _Outline] = {}

    def encode(self, chat: Chat) -> bytes | None:
        """The packed ids of ``chat``. None: it has to be rendered and judged as a whole.

        Raises ``ChatTemplateRejectedError``.
        """
        roles = plain_roles(chat)
        if roles is None or len(roles) > _MAX_MESSAGES:
            return None
        outline = self._outlines.get((chat.add_generation_prompt, roles))
        if outline is None:
            outline = self._learn(roles, chat.add_generation_prompt)
        if not outline.is_usable:
            return None
        pieces = [outline.start]
        characters = 0
        for stretch in outline.stretches:
            text = stretch.texts[0]
            for at, place in enumerate(stretch.places):
                text += (chat.messages[place].content or "") + stretch.texts[at + 1]
            characters += len(text)
            ids = self._segments.encode_ordinary(text) if characters <= _MAX_CHARACTERS else None
            if ids is None:
                return None
            pieces.append(ids)
            pieces.append(stretch.behind)
        return b"".join(pieces)

    def _learn(self, roles: tuple[str, ...], add_generation_prompt: bool) -> _Outline:  # noqa: FBT001 - of the key
        fixed = [""]  # what stands before each stretch, and behind the last one
        stretches: list[tuple[list[str], list[int]]] = []
        texts: list[str] = []
        places: list[int] = []

        def close() -> None:
            if places:
                stretches.append((texts, places))
                fixed.append("")
            else:
                fixed[-1] += texts[0]

        for at, written in enumerate(self._outline(roles, add_generation_prompt)):
            found = [] if at % 2 else list(self._dividers.finditer(written))
            if at % 2:
                places.append(int(written))
            elif not found:
                texts.append(written)
            else:
                texts.append(written[: found[0].start()])
                close()
                fixed[-1] += written[found[0].start() : found[-1].end()]
                texts, places = [written[found[-1].end() :]], []
        close()
        encoded = [self._segments.encode(text) for text in fixed]
        outline = _Outline(
            start=encoded[0].ids,
            stretches=[
                _Stretch(texts=texts, places=places, behind=behind.ids)
                for (texts, places), behind in zip(stretches, encoded[1:], strict=True)
            ],
            is_usable=all(one.written == one.specials for one in encoded),
        )
        if len(self._outlines) >= _MAX_OUTLINES:
            self._outlines.clear()
        self._outlines[add_generation_prompt, roles] = outline
        return outline
