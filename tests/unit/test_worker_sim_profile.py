from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from worker.sim_fit import errors, fit, replay
from worker.sim_profile import Measurement, dump_profile, load_profile

_H200 = load_profile("h200-llama3-8b-awq")


@pytest.mark.parametrize("row", _H200.measured, ids=lambda row: f"concurrency-{row.concurrency}")
def test_profile_reproduces_the_measured_machine(row: Measurement) -> None:
    """TTFT, ITL and throughput are within 10 % of what the H200 did, at each concurrency."""
    simulated = replay(_H200, row)

    assert simulated.ttft_ms == pytest.approx(row.ttft_ms, rel=0.1)
    assert simulated.itl_ms == pytest.approx(row.itl_ms, rel=0.1)
    assert simulated.tokens_per_s == pytest.approx(row.tokens_per_s, rel=0.1)


def test_fit_finds_the_timing_that_made_the_measurements() -> None:
    """What the sim itself measures is fitted nearly exactly."""
    truth = replace(_H200, total_blocks=1_000)
    rows = tuple(
        replay(truth, replace(_H200.measured[0], concurrency=concurrency, prompt_tokens=64, output_tokens=8))
        for concurrency in (1, 8)
    )

    fitted = fit(replace(truth, measured=rows))

    assert 0.03 > max(map(abs, errors(fitted)))


def test_profile_survives_its_file(tmp_path: Path) -> None:
    """What is dumped is loaded."""
    path = tmp_path / "other.json"
    path.write_text(dump_profile(_H200), encoding="utf-8")

    assert load_profile(str(path)) == _H200


def test_unknown_profile_names_the_shipped_ones() -> None:
    """A wrong name is answered with the right ones."""
    with pytest.raises(ValueError, match="h200-llama3-8b-awq"):
        load_profile("h100")


def test_profile_with_unknown_key_is_refused(tmp_path: Path) -> None:
    """A misspelt key is not ignored."""
    path = tmp_path / "other.json"
    path.write_text(dump_profile(_H200).replace('"block_size"', '"blocksize"'), encoding="utf-8")

    with pytest.raises(ValueError, match="blocksize"):
        load_profile(str(path))


def test_profile_that_cannot_step_is_refused() -> None:
    """Every running request needs room in a step."""
    with pytest.raises(ValueError, match="max_batched_tokens"):
        replace(_H200, max_batched_tokens=10)
