"""A word to mypyc, which nobody else hears: a compiled class may have heirs that are not compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr  # noqa: PLC0414 - so that it can be had from here
else:

    def mypyc_attr(**_: object) -> Callable[[type], type]:
        """Changes nothing."""
        return lambda it: it
