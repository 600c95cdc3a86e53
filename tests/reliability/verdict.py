"""What a run of a scenario came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``figure`` is for the table of docs/reliability.md, ``details`` for those who want more, ``wrong`` what broke."""

    figure: str
    details: Mapping[str, object]
    wrong: Sequence[str]
