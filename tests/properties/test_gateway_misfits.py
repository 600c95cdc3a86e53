from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.demand import Demand, Fit
from gateway.policy.misfits import Misfits
from gateway.workers.client import WorkerClient
from gateway.workers.fleet import Fleet
from tests.fakes.clock import ManualClock
from tests.fakes.served_models import served_model
from tests.fakes.worker_loads import worker_load

_MODEL = served_model()
_LOADS = st.fixed_dictionaries(
    {
        "total_blocks": st.sampled_from([20, 100]),
        "free_blocks": st.integers(0, 20),
        "reserved_blocks": st.integers(0, 100),
        "pending_prefill_tokens": st.integers(0, 200),
        "admissible_requests": st.none() | st.integers(0, 2),
        "admissible_prompt_tokens": st.none() | st.integers(0, 200),
    }
)
_FITS = st.builds(
    Fit,
    expected_tokens=st.integers(1, 400),
    spare_tokens=st.sampled_from([0, 40, 160]),
    mean_tokens=st.sampled_from([0, 60]),
    prefill_line_tokens=st.sampled_from([None, 100]),
)
_DEMANDS = st.builds(Demand, prompt_tokens=st.integers(1, 200), need_tokens=st.integers(1, 1_000))


@dataclass(frozen=True)
class _Unconnected:
    """As much of a client as a fleet needs."""

    target: str


@given(st.lists(_LOADS, min_size=1, max_size=3), st.lists(st.tuples(_DEMANDS, _FITS), max_size=40))
def test_who_is_covered_would_find_no_room(loads: list[dict[str, Any]], requests: list[tuple[Demand, Fit]]) -> None:
    """Whatever it is that others before did not find; that some find room meanwhile changes nothing."""
    fleet = Fleet(random.Random(0), ManualClock(0.0))
    for number, load in enumerate(loads):
        fleet.join(cast("WorkerClient", _Unconnected(f"worker:{number}")), _MODEL, worker_load(**load))
    misfits = Misfits()
    for demand, fit in requests:
        is_covered = misfits.cover(demand, fit)
        lease = fleet.lease(_MODEL, demand, fit, exclude=())
        assert not (is_covered and lease is not None)
        if lease is None:
            misfits.add(demand, fit)
            assert misfits.cover(demand, fit)
