"""What a quantizer has to know of this gateway's traffic, model by model: read as a number, written as files.

Histograms hold no text and are always kept. Requests themselves are kept only where ``traffic_sketch_requests`` asks
for them, and then the files hold what people wrote: they are readable by their owner alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from gateway.chat import Chat
from gateway.jobs import PreparedRequest
from gateway.policy.traffic import Document, Traffic
from gateway.prompt_histogram import PromptHistogram
from gateway.request import PromptSource

_LOGGER = logging.getLogger(__name__)

_FORMAT = "tidegate.traffic-sketch/1"  # as the quantizer reads it
_MAX_DOCUMENT_CHARACTERS = 100_000  # bounds the memory: a reservoir of 1,000 holds at most some 100 MB


class TrafficSketches:
    """A sketch for each model. ``directory`` None writes nothing; ``requests`` 0 keeps no request."""

    def __init__(self, *, directory: Path | None, interval_s: float, requests: int, rng: random.Random) -> None:
        self._directory = directory
        self._interval_s = interval_s
        self._requests = requests
        self._rng = rng
        # One thread, so that what is written last was taken last.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="traffic-sketch")
        self._traffic: dict[str, Traffic] = {}
        self._calibrations: dict[str, PromptHistogram | None] = {}

    @property
    def calibration_drift(self) -> Mapping[str, float]:
        """By model, how far its traffic is from what its checkpoint was calibrated with; where both are known."""
        drifts = {
            name: self._traffic[name].drift(calibration)
            for name, calibration in self._calibrations.items()
            if calibration is not None
        }
        return {name: drift for name, drift in drifts.items() if drift is not None}

    def note(self, prepared: PreparedRequest) -> None:
        """Count a request that is about to run."""
        model, prompt = prepared.request.model, prepared.request.prompt
        if model.name not in self._traffic:
            self._traffic[model.name] = Traffic(reservoir_size=self._requests, rng=self._rng)
        self._calibrations[model.name] = model.calibration
        self._traffic[model.name].note(
            prompt_tokens=prepared.prompt_tokens,
            turns=_turns(prompt),
            document=lambda: _document(prompt),
        )

    async def run(self) -> NoReturn:
        """Write the files now and then, and once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                self._writer.submit(self._write, self._contents())
        finally:
            self._writer.submit(self._write, self._contents())
            self._writer.shutdown()

    def _contents(self) -> dict[str, str]:
        """What the files are to hold, by model. On the event loop, where nothing is noted meanwhile."""
        if self._directory is None:
            return {}
        sketches = {
            name: {
                "format": _FORMAT,
                "histogram": traffic.histogram.to_json(),
                "reservoir": list(traffic.reservoir),
            }
            for name, traffic in self._traffic.items()
        }
        return {name: json.dumps(sketch, ensure_ascii=False) + "\n" for name, sketch in sketches.items()}

    def _write(self, contents: Mapping[str, str]) -> None:
        """Replace the files, each at once. A disk that is full stops no traffic."""
        try:
            for name, content in contents.items():
                path = Path(self._directory or ".") / f"{quote(name, safe='')}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f".{path.name}.{os.getpid()}")
                partial.touch(mode=0o600)
                partial.write_text(content, encoding="utf-8")
                partial.rename(path)
        except OSError as error:
            _LOGGER.warning("the traffic sketch could not be written: %s", error)


def _turns(prompt: PromptSource) -> int:
    """How often a person speaks in it."""
    turns = 0
    if isinstance(prompt, Chat):
        for message in prompt.messages:
            turns += message.role == "user"
    return turns


def _document(prompt: PromptSource) -> Document | None:
    """The prompt as the quantizer reads it. Token ids are no text, and tool calls no messages that it could render."""
    if isinstance(prompt, str):
        return {"text": prompt} if prompt.strip() and len(prompt) <= _MAX_DOCUMENT_CHARACTERS else None
    if not isinstance(prompt, Chat) or prompt.tools:
        return None
    if any(message.content is None or message.tool_calls or message.role == "tool" for message in prompt.messages):
        return None
    messages = [{"role": message.role, "content": message.content or ""} for message in prompt.messages]
    is_short = sum(len(message["content"]) for message in messages) <= _MAX_DOCUMENT_CHARACTERS
    return {"messages": messages} if is_short else None
