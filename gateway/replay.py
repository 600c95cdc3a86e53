"""``python -m gateway.replay LOG``: makes the decisions of a log again, and prints those that come out otherwise."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.policy.decision import Again, UnknownDecisionError
from gateway.policy.record import MissingRecordError


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A decision that this release makes otherwise, or cannot read. ``line`` counts from 1."""

    line: int
    recorded: Any
    replayed: Any


def replay(lines: Iterable[str], counts: Counter[str]) -> Iterator[Difference]:
    """The differences; ``counts`` is told of every decision, by kind."""
    again = Again()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            counts[str(record.get("kind"))] += 1
            recorded, replayed = record.get("outcome"), again.decide(record)
        except (UnknownDecisionError, MissingRecordError, ValueError, TypeError, KeyError, AttributeError) as error:
            yield Difference(line=number, recorded=line.strip()[:200], replayed=f"cannot be read: {error}")
            continue
        if replayed != recorded:
            yield Difference(line=number, recorded=recorded, replayed=replayed)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 when all is the same, 1 when something differs, 2 for an unusable command line."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m gateway.replay LOG\n")
        return 2
    counts: Counter[str] = Counter()
    differences = 0
    try:
        with Path(arguments[0]).open(encoding="utf-8") as lines:
            for difference in replay(lines, counts):
                differences += 1
                sys.stdout.write(
                    f"line {difference.line}: {json.dumps(difference.recorded)}\n"
                    f"         now {json.dumps(difference.replayed)}\n"
                )
    except OSError as error:
        sys.stderr.write(f"{arguments[0]}: {error.strerror}\n")
        return 2
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
    sys.stdout.write(f"decisions: {kinds}; {differences} differ\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
