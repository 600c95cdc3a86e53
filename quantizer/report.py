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


def read_answers(directory: Path) -> list[dict[str, Any]]:
    """What ``write`` was given as ``answers``; empty if the report is gone, which a checkpoint may do without."""
    path = directory / "report.json"
    return list(json.loads(path.read_bytes())["answers"]) if path.exists() else []


def _lengths(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of prompts by length, of the calibration and, where a sketch came with it, of the traffic.

    Buckets longer than any prompt are left out.
    """
    used = Histogram.from_json(calibration["histogram"]).by_length()
    traffic = Histogram.from_json(calibration["traffic"]).by_length() if calibration["traffic"] else None
    filled = [i for i, counts in enumerate(zip(used, traffic or used, strict=True)) if any(counts)]
    shown = slice(0, max(filled, default=0) + 1)
    edges = calibration["histogram"]["prompt_token_edges"]
    labels = [f"< {edges[0]}", *(f"{low} to {high - 1}" for low, high in pairwise(edges)), f">= {edges[-1]}"]
    return {
        "labels": labels[shown],
        "calibration": _shares(used)[shown],
        "traffic": _shares(traffic)[shown] if traffic else None,
        "stability_index": population_stability_index(traffic, used) if traffic else None,
    }


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]
