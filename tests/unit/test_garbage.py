from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tidegate.garbage import leave_out_what_is_there


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class _Cycle:
    def __init__(self) -> None:
        self.me = self


def test_what_is_there_is_not_looked_through_again() -> None:
    """A collection's time goes by what has come since, and not by the modules that are loaded."""
    before = len(gc.get_objects())
    leave_out_what_is_there()
    assert len(gc.get_objects()) < before // 10
    assert gc.get_freeze_count() > 0


def test_what_comes_later_is_still_collected() -> None:
    """A cycle that nobody holds does not stay."""
    leave_out_what_is_there()
    cycle = _Cycle()
    reference = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert reference() is None
