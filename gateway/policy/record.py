"""The form in which a decision is written down: a mapping of plain values, as JSON holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]

SEED_BITS = 48  # of seeds and ids: JSON's numbers are exact up to 53


class MissingRecordError(Exception):
    """A decision follows from others before it, which are not in the log, or were made otherwise."""
