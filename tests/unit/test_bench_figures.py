from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.data_plane import handshake
from bench.data_plane.experiment import Measurement, select
from bench.data_plane.figures import goals, tabulate
from bench.data_plane.scenarios import SCENARIOS
from bench.data_plane.toolchain import ToolchainError, brought

_QUIET = Measurement(
    subject="envoy",
    scenario="paced-200",
    round=0,
    wall_s=2.0,
    messages=20_000,
    requests=200,
    failed=0,
    error="",
    gateway_cpu_s=0.2,
    worker_cpu_s=0.1,
    client_cpu_s=0.1,
    others_share=0.0,
    base_pss_bytes=2**20,
    pss_bytes=2**20,
    ttft_p50_us=300.0,
    ttft_p99_us=900.0,
    latency_p50_us=None,
    latency_p99_us=None,
)


def test_the_cheapest_turn_of_a_request_is_told_beside_the_median() -> None:
    """Neighbours on the processor make a turn dearer, never cheaper."""
    rounds = [replace(_QUIET, scenario="sixteen", gateway_cpu_s=cpu_s) for cpu_s in (0.08, 0.05, 0.09)]
    figures = tabulate(rounds)["envoy", "sixteen"]
    assert (400.0, 250.0) == (figures.cpu_us_per_request, figures.lowest_cpu_us_per_request)


def test_figures_are_medians_over_rounds() -> None:
    """One noisy round does not move a figure."""
    rounds = [replace(_QUIET, round=n, gateway_cpu_s=cpu_s) for n, cpu_s in enumerate((0.2, 0.22, 4.0))]
    assert 11.0 == pytest.approx(tabulate(rounds)["envoy", "paced-200"].cpu_us_per_message)


def test_failed_rounds_give_no_figures() -> None:
    """What failed costs less, and must not look cheap."""
    figures = tabulate([replace(_QUIET, failed=3, gateway_cpu_s=0.01)])["envoy", "paced-200"]
    assert (None, 3) == (figures.cpu_us_per_message, figures.failed)


def test_memory_of_a_stream_is_the_growth_over_all_streams() -> None:
    """Ten thousand streams for 80 MB more are 8 kB each."""
    idle = replace(_QUIET, scenario="idle", pss_bytes=2**20 + 80_000_000)
    assert 8_000 == tabulate([idle])["envoy", "idle"].idle_stream_bytes


def test_a_goal_compares_within_one_run() -> None:
    """Our CPU over Envoy's; unknown where one of the two was not measured."""
    table = tabulate([_QUIET, replace(_QUIET, subject="tidegate-http2", gateway_cpu_s=0.25)])
    verdicts = {goal.what: (goal.measured, goal.is_met) for goal in goals(table)}
    assert (1.25, False) == verdicts["CPU per relayed message over Envoy's, paced-200"]
    assert (None, None) == verdicts["CPU per relayed message over SMG's, paced-200"]


def test_cores_are_judged_only_where_the_pace_is_kept() -> None:
    """What 80,000 messages a second cost says nothing of 100,000."""
    kept = replace(_QUIET, subject="tidegate-http2", scenario="paced-2000", wall_s=3.0, messages=300_000)
    lost = replace(kept, messages=240_000)
    verdicts = [{goal.what: goal.is_met for goal in goals(tabulate([one]))} for one in (kept, lost)]
    assert [True, None] == [verdict["cores for 2,000 streams of 50 tokens/s"] for verdict in verdicts]


def test_a_load_is_so_many_requests_or_so_many_seconds() -> None:
    """The client of the one does not know the option of the other."""
    lengths = {scenario.name: scenario.arguments()[0] for scenario in SCENARIOS}
    assert ("--requests=1000", "--seconds=3.0") == (lengths["sixteen"], lengths["paced-2000"])


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    """A typing error must not measure nothing."""
    with pytest.raises(ValueError, match=r"flod: not among .*flood"):
        select("one,flod", among=SCENARIOS)


def test_the_prompt_has_the_tokens_that_the_table_claims() -> None:
    """As the sim's tokenizer counts them."""
    assert "The tide comes in" == handshake.prompt(100)[:17]
    assert 100 == handshake.count(handshake.prompt(100))


def test_a_folder_of_programs_without_one_that_is_needed_is_told(tmp_path: Path) -> None:
    """Before anything is measured, and by name."""
    (tmp_path / "load").touch()
    with pytest.raises(ToolchainError, match="has no streams and no worker"):
        brought(tmp_path)
