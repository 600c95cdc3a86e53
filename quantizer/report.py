"""The report of a run: report.json for programs, report.html (one file, nothing to fetch) for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from quantizer.calibration.histogram import Histogram, population_stability_index
from quantizer.evaluation.proof import Answer

_TEMPLATES = Path(__file__).parent / "data"


def write(
    directory: Path, manifest: Mapping[str, Any], answers: Sequence[Answer], seconds: Mapping[str, float]
) -> None:
    """Write both files into the checkpoint's directory."""
    content = {
        **{key: value for key, value in manifest.items() if key not in ("tensors", "format")},
        "answers": [asdict(answer) for answer in answers],
        "seconds": dict(seconds),
        "lengths": _lengths(manifest["calibration"]),
    }
    (directory / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("report.html.j2").render(report=content)
    (directory / "report.html").write_text(html, encoding="utf-8")


def _lengths(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of prompts by length, of the calibration and, where a sketch came with it, of the traffic."""
    used = Histogram.from_json(calibration["histogram"])
    edges = calibration["histogram"]["prompt_token_edges"]
    lengths: dict[str, Any] = {
        "labels": [f"< {edges[0]}", *(f"{low}-{high - 1}" for low, high in pairwise(edges)), f">= {edges[-1]}"],
        "calibration": _shares(used.by_length()),
        "traffic": None,
        "stability_index": None,
    }
    if calibration["traffic"]:
        traffic = Histogram.from_json(calibration["traffic"])
        lengths["traffic"] = _shares(traffic.by_length())
        lengths["stability_index"] = population_stability_index(traffic.by_length(), used.by_length())
    return lengths


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]
