"""The form in which a decision is written down: a mapping of plain values, as JSON holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
