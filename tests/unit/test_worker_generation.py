from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

import worker
from tests.fakes.clock import leap
from tests.fakes.feeds import wide_feed
from tests.fakes.scripted_engine import FACTS, ScriptedEngine
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.worker.v1 import worker_service_pb2
from worker.checkpoint import open_checkpoint
from worker.constraints import ConstraintChecker
from worker.engine import (
    Constraint,
    ConstraintKind,
    Continued,
    EngineFinish,
    EngineOutput,
    FinishReason,
    GenerationJob,
    Sampling,
)
from worker.errors import ConstraintViolatedError, DeadlineExceededError
from worker.generation import Generation
from worker.hot_prefixes import HotPrefixes
from worker.ledger import Capacity, Ledger
from worker.load import LoadFeed
from worker.model import ServedModel
from worker.output_lengths import OutputLengths
from worker.pace import Pace
from worker.prefetch import Prefetcher

_CHECKPOINT = open_checkpoint(Path(worker.__file__).parent / "sim_model")
_DIGITS = Constraint(kind=ConstraintKind.REGEX, text="[0-9]+")


class _DigitsChecker(ConstraintChecker):
    """Finds every constraint good, and holds every text against ``[0-9]+``; without a process of its own."""

    async def check(self, constraint: Constraint) -> None:
        pass

    async def verdict(self, constraint: Constraint, text: str) -> bool:
        return text.isdigit()


def _model(engine: ScriptedEngine) -> ServedModel:
    capacity = Capacity(total_blocks=64, block_size=16, max_running_requests=8)
    ledger = Ledger(capacity, OutputLengths(quantile=0.7), wide_feed())
    pace = Pace(ledger, engine.load)
    prefixes = HotPrefixes(block_size=16, total_blocks=64, max_blocks=16)
    return ServedModel(
        name="test",
        default_max_output_tokens=100_000,
        checkpoint=_CHECKPOINT,
        engine=engine,
        facts=FACTS,
        constraints=_DigitsChecker(_CHECKPOINT.directory, FACTS.vocabulary_size),
        ledger=ledger,
        pace=pace,
        load_feed=LoadFeed(ledger, pace, engine.load, lambda: False),
        prefetcher=Prefetcher(engine, FACTS, ledger, prefixes),
    )


class _Client:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.responses: list[inference_service_pb2.GenerateResponse] = []

    def send(self, responses: tuple[inference_service_pb2.GenerateResponse, ...]) -> None:
        self.responses += responses


def _generation(model: ServedModel, client: _Client, constraint: Constraint | None = None) -> Generation:
    job = GenerationJob(
        job_id="job-1", prompt_token_ids=[1], sampling=Sampling(max_output_tokens=5), constraint=constraint
    )
    return Generation(model, job, worker_service_pb2.GenerateRequest(), client.send)


def _continuing(model: ServedModel, client: _Client, constraint: Constraint | None = None) -> Generation:
    job = GenerationJob(
        job_id="job-1",
        prompt_token_ids=[1],
        sampling=Sampling(max_output_tokens=5),
        constraint=constraint,
        continued=Continued(token_ids=(5, 6), text_bytes=2),
    )
    return Generation(
        model, job, worker_service_pb2.GenerateRequest(is_started=True, continuation_count=2), client.send
    )


def _output(text: str, reason: FinishReason) -> EngineOutput:
    return EngineOutput(token_ids=(7,), text=text, finish=EngineFinish(reason=reason))


async def test_deadline_in_mid_stream_aborts_and_releases() -> None:
    """The worker itself ends what is late, with a reason, and keeps nothing of it."""
    engine = ScriptedEngine((EngineOutput(token_ids=(7,), text="a"),), hangs=True)
    model = _model(engine)

    running = asyncio.create_task(_generation(model, _Client()).run(asyncio.get_running_loop().time() + 60))
    while not engine.running:  # noqa: ASYNC110 - it has no event for a test
        await asyncio.sleep(0)
    leap(60)
    with pytest.raises(DeadlineExceededError):
        await running

    assert ["job-1"] == engine.aborted
    assert (0, 0) == (model.ledger.requests, model.ledger.reserved_blocks)


@pytest.mark.parametrize(
    ("text", "reason", "verdict"),
    [
        ("42", FinishReason.STOP, generation_pb2.CONSTRAINT_VERDICT_SATISFIED),
        ("42", FinishReason.LENGTH, generation_pb2.CONSTRAINT_VERDICT_SATISFIED),
        ("4a", FinishReason.LENGTH, generation_pb2.CONSTRAINT_VERDICT_INCOMPLETE),
    ],
)
async def test_verdict_stands_in_finished(
    text: str, reason: FinishReason, verdict: generation_pb2.ConstraintVerdict.ValueType
) -> None:
    """The whole text is held against the constraint; one cut off by its limit may be incomplete."""
    model = _model(ScriptedEngine((EngineOutput(token_ids=(7,), text=text[0]), _output(text[1:], reason))))

    finished = await _generation(model, _Client(), _DIGITS).run(None)

    assert verdict == finished.constraint_verdict


async def test_output_that_violates_its_constraint_is_an_error() -> None:
    """A finished text of another form never ends in Finished, and teaches the ledger nothing."""
    model = _model(ScriptedEngine((_output("4a", FinishReason.STOP),)))

    with pytest.raises(ConstraintViolatedError):
        await _generation(model, _Client(), _DIGITS).run(None)

    assert (0, 0) == (model.ledger.requests, model.ledger.reserved_blocks)


def test_model_description_keeps_defaults_inside_the_limits() -> None:
    """No default exceeds what a request may ask for: here the context of 512 less one prompt token."""
    limits = _model(ScriptedEngine()).describe().model.limits

    assert (511, 511) == (limits.max_output_tokens, limits.default_max_output_tokens)


def test_sim_model_has_the_canaries_of_the_contract() -> None:
    """The shipped canaries are at least eight, with text and token ids."""
    canaries = json.loads((Path(worker.__file__).parent / "sim_model" / "canaries.json").read_text(encoding="utf-8"))

    assert 8 <= len(canaries)
    assert all(canary["rendered_prompt"] and canary["token_ids"] for canary in canaries)


async def test_a_continued_output_is_billed_once_and_as_a_whole() -> None:
    """Its Usage is that of an output without a break, and Started is not repeated."""
    model = _model(ScriptedEngine((_output("a", FinishReason.STOP),)))

    client = _Client()
    finished = await _continuing(model, client).run(None)

    assert ["delta", "finished"] == [response.WhichOneof("event") for response in client.responses]
    assert (1, 3, 2) == (
        finished.usage.prompt_token_count,
        finished.usage.output_token_count,
        finished.continuation_count,
    )


@pytest.mark.parametrize(("before", "is_violated"), [("42", False), ("4a", True)])
async def test_the_verdict_is_on_the_whole_of_a_continued_text(before: str, *, is_violated: bool) -> None:
    """What another worker generated counts as what this one did."""
    output = EngineOutput(
        token_ids=(7,), text="3", continued_text=before, finish=EngineFinish(reason=FinishReason.STOP)
    )
    generation = _continuing(_model(ScriptedEngine((output,))), _Client(), _DIGITS)

    expectation = pytest.raises(ConstraintViolatedError) if is_violated else contextlib.nullcontext()
    with expectation:
        await generation.run(None)
