"""Collects everything that is wrong with a request, so that a caller is told once and not field by field."""

from __future__ import annotations

from gateway.errors import InvalidRequestError
from tidegate.rpc.status import Violation

# Status details travel in trailers, of which clients take 8 KiB: of what is longer grpc's own make RESOURCE_EXHAUSTED,
# at random. What is beyond this is counted, not named. In base64 it is a third more, and it is not alone there.
_MAX_NAMED = 48
_MAX_NAMED_BYTES = 3072


class Violations:
    """The invalid fields of one request, in the order in which they were found."""

    def __init__(self) -> None:
        self._named: list[Violation] = []
        self._named_bytes = 0
        self._left_out = 0

    def add(self, field: str, description: str) -> None:
        """Note that ``field``, a path in the request such as ``sampling.top_p``, is invalid."""
        size = len(field.encode()) + len(description.encode())
        is_full = len(self._named) == _MAX_NAMED or self._named_bytes + size > _MAX_NAMED_BYTES
        if self._left_out or (self._named and is_full):
            self._left_out += 1
            return
        self._named.append(Violation(field=field, description=description))
        self._named_bytes += size

    def raise_if_any(self) -> None:
        """Raise ``InvalidRequestError`` with all of them, unless there are none."""
        if self._left_out:
            last = self._named[-1]
            self._named[-1] = Violation(
                field=last.field, description=f"{last.description}; {self._left_out} more violations are not named"
            )
        if self._named:
            raise InvalidRequestError(self._named)


def quoted(text: str, *, max_characters: int = 40) -> str:
    """A caller's ``text`` as it may stand in a description: quoted, printable and short."""
    return ascii(text if len(text) <= max_characters else f"{text[:max_characters]}...")
