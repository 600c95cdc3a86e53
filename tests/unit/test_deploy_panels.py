from __future__ import annotations

import pytest

from deploy.panels import Series, main, shown
from tidegate.telemetry.admin import AdminServer, Page
from tidegate.telemetry.metrics import Metrics


def answer(query: str) -> Series:
    """Of a Prometheus that knows of refusals alone."""
    assert "$" not in query
    if "tidegate_refusals_total" not in query:
        return []
    labels = {"tidegate_tenant": "batch", "error_type": "WAIT_TOO_LONG", "tidegate_criticality": "sheddable"}
    few = {"tidegate_tenant": "search", "error_type": "EVICTED", "tidegate_criticality": "critical"}
    return [{"metric": few, "value": [0, "0.25"]}, {"metric": labels, "value": [0, "21.04"]}]


def test_a_panel_is_shown_with_its_latest_values() -> None:
    """The largest first, each under its legend and in its unit."""
    assert [
        "",
        "Who is refused, and why?",
        "  Refusals by tenant. Who is shed. The reason is beside, and below when they were told to come back.",
        "            21/s  batch",
        "          0.25/s  search",
    ] == list(shown(answer, "by tenant"))[:5]


def test_a_panel_without_data_says_so() -> None:
    """NaN is no data either: a quantile of nothing."""
    expected = [
        "",
        "Who is refused, and why?",
        "  Told to retry after. What RetryInfo said, median. It follows from the rate at which blocks come free.",
        "    nothing",
    ]
    assert expected == list(shown(answer, "told to retry"))
    assert expected == list(shown(lambda _: [{"metric": {}, "value": [0, "NaN"]}], "told to retry"))


def test_a_row_is_shown_whole() -> None:
    """By a part of its title, in whatever case; and nothing by one that no title has."""
    titles = [line for line in shown(answer, "WHO IS refused") if line.startswith("  ") and line[2] != " "]
    assert ["Refusals by tenant", "Refusals by reason"] == [title.strip().partition(".")[0] for title in titles[:2]]
    assert [] == list(shown(answer, "no such title"))


def test_a_port_that_is_no_prometheus_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers, and not as Prometheus does."""
    page = Page(content_type="application/json", content=lambda: b"{}")
    server = AdminServer("127.0.0.1:0", Metrics().registry, {"/api/v1/query": page})
    monkeypatch.setattr("sys.argv", ["panels", "--prometheus", f"http://{server.address}"])
    assert 1 == main()
    server.close()
    assert f"http://{server.address} does not answer as Prometheus does\n" == capsys.readouterr().err
