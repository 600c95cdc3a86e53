"""What a call brings with it beside its message: an id, a deadline, and whose it says to be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import getrandbits

from tidegate.rpc.metadata import REQUEST_ID, TENANT

_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ID_BYTES = 16  # it names a call, and is no secret

# An answer that the deadline passed has to be sent before the client's own clock ends the call without one.
_ANSWER_MARGIN_S = 0.02
_ANSWER_MARGIN_SHARE = 0.1


@dataclass(slots=True, kw_only=True, init=False)
class Call:
    """One call. ``deadline_at`` is by the event loop's clock. ``tenant_claim`` is what it says, trusted or not."""

    response_id: str
    deadline_at: float
    tenant_claim: str = ""

    def __init__(self, *, response_id: str, deadline_at: float, tenant_claim: str = "") -> None:
        self.response_id = response_id
        self.deadline_at = deadline_at
        self.tenant_claim = tenant_claim

    @classmethod
    def begin(
        cls, metadata: Iterable[tuple[str, str | bytes]], *, client_s: float | None, max_duration_s: float
    ) -> Call:
        """A call that has just come. One without a deadline, or with a longer one, may take ``max_duration_s``.

        ``client_s`` is the time in which the client wants its answer, None for no limit.
        """
        values = dict(metadata)
        named = str(values.get(REQUEST_ID, ""))
        is_usable = bool(named) and _REQUEST_ID_FORM.fullmatch(named) is not None
        return Call(  # by its name: compiled code then makes one without asking which class it is
            response_id=named if is_usable else getrandbits(8 * _ID_BYTES).to_bytes(_ID_BYTES, "big").hex(),
            deadline_at=asyncio.get_running_loop().time() + _duration_s(client_s, max_duration_s),
            tenant_claim=str(values.get(TENANT, "")),
        )

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return self.left_s(asyncio.get_running_loop().time())

    def left_s(self, now: float) -> float:
        """The same, where the event loop's clock has been read."""
        return max(0.0, self.deadline_at - now)


def _duration_s(client_s: float | None, max_duration_s: float) -> float:
    if client_s is None:
        return max_duration_s
    return min(max_duration_s, client_s - min(_ANSWER_MARGIN_S, client_s * _ANSWER_MARGIN_SHARE))
