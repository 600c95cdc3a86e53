"""Traffic sketches of a real gateway in front of a worker whose checkpoint has a manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import worker
from quantizer.calibration.documents import read_corpus
from quantizer.calibration.histogram import Histogram
from quantizer.manifest import FILE_NAME, describe
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_request
from tests.fakes.running_worker import running_worker
from tidegate.inference.v1 import chat_pb2
from worker.config import WorkerSettings


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    """A sim worker, whose checkpoint was calibrated with long conversations."""
    directory = Path(shutil.copytree(Path(worker.__file__).parent / "sim_model", tmp_path / "model"))
    calibration = {"histogram": Histogram.of([(3000, 5)] * 200).to_json()}
    (directory / FILE_NAME).write_text(json.dumps(describe(directory) | {"calibration": calibration}), encoding="utf-8")
    return WorkerSettings(
        engine="sim", model_dir=directory, model_name="m", listen="127.0.0.1:0", drain_grace_s=5, sim_time_scale=0.01
    )


async def _ask(gateway: RunningGateway, *, requests: int) -> None:
    for number in range(requests):
        request = text_request(max_output_tokens=1)
        message = chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_USER, content=f"Question {number}, with a secret")
        request.chat.messages.append(message)
        _, error = await gateway.generate(request)
        assert error is None


async def test_drift_tells_traffic_that_the_checkpoint_was_not_calibrated_for(settings: WorkerSettings) -> None:
    """The manifest's histogram goes from worker to gateway, and short questions are far from it."""
    async with running_worker(settings) as worker, running_gateway(worker.worker.address) as gateway:
        await _ask(gateway, requests=99)
        assert {} == gateway.gateway.traffic.calibration_drift
        await _ask(gateway, requests=1)
        assert gateway.gateway.traffic.calibration_drift["m"] > 1


async def test_without_being_asked_a_sketch_holds_no_text(settings: WorkerSettings, tmp_path: Path) -> None:
    """Lengths and turns only; it is written at the end at the latest."""
    sketches = tmp_path / "sketches"
    async with (
        running_worker(settings) as worker,
        running_gateway(worker.worker.address, traffic_sketch_dir=sketches) as gateway,
    ):
        await _ask(gateway, requests=3)
    (path,) = sketches.iterdir()
    assert "secret" not in path.read_text(encoding="utf-8")
    traffic = read_corpus(path).traffic
    assert traffic is not None
    assert 3 == sum(traffic.by_turns()[1:2])


async def test_the_quantizer_reads_a_sketch_with_requests(settings: WorkerSettings, tmp_path: Path) -> None:
    """As many as were asked for, in the form of its calibration, readable by nobody else."""
    sketches = tmp_path / "sketches"
    async with (
        running_worker(settings) as worker,
        running_gateway(
            worker.worker.address,
            traffic_sketch_dir=sketches,
            traffic_sketch_requests=2,
            traffic_sketch_interval_s=0.01,
        ) as gateway,
    ):
        await _ask(gateway, requests=5)
    path = sketches / "m.json"
    corpus = read_corpus(path)
    assert 2 == len(corpus.documents)
    assert all("with a secret" in document.messages[0]["content"] for document in corpus.documents)
    assert 0o600 == path.stat().st_mode & 0o777
    assert [path] == list(sketches.iterdir())
