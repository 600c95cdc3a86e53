from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.fakes.collector import Collector, collecting, flush
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.running_worker import RunningWorker, running_worker
from tests.fakes.scripted_worker import Response, ScriptedWorker, at_capacity, beginning, serving
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.telemetry.setup import Telemetry

TRACE_ID, CALLER_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = (("traceparent", f"00-{TRACE_ID}-{CALLER_ID}-01"),)

GATEWAY = "tidegate.inference.v1.InferenceService/Generate"
WORKER = "tidegate.worker.v1.WorkerService/Generate"
PHASES = ["engine.queued", "engine.prefill", "engine.decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A gateway and a worker that send their spans to one collector."""

    collector: Collector
    gateway: RunningGateway
    worker: RunningWorker
    telemetries: tuple[Telemetry, ...]

    async def tree(self) -> list[Any]:
        """What the trace of ``METADATA`` holds, once nothing runs any more."""
        await self.gateway.gateway.until_idle()
        while self.worker.worker.is_busy:  # noqa: ASYNC110 - the worker hears of a cancelled call by the network
            await asyncio.sleep(0.005)
        await flush(*self.telemetries)
        return self.collector.tree(TRACE_ID, CALLER_ID)

    @property
    def live_spans(self) -> float:
        """Spans of the trace that have begun and not ended."""
        return live(*self.telemetries)


def live(*telemetries: Telemetry) -> float:
    """Spans of all traces that have begun and not ended."""
    families = [family for one in telemetries for family in one.metrics.registry.collect()]
    return sum(one.value for family in families if family.name == "tidegate_trace_open_spans" for one in family.samples)


@pytest.fixture(params=["http2", "grpc"])
async def system(request: pytest.FixtureRequest, stack: AsyncExitStack) -> AsyncIterator[System]:
    """On each of the data planes."""
    collector = await stack.enter_async_context(collecting())
    of_gateway, of_worker = collector.telemetry("gateway"), collector.telemetry("worker", begins_traces=False)
    worker = await stack.enter_async_context(running_worker(telemetry=of_worker))
    gateway = await stack.enter_async_context(
        running_gateway(worker.worker.address, telemetry=of_gateway, data_plane=request.param)
    )
    yield System(collector=collector, gateway=gateway, worker=worker, telemetries=(of_gateway, of_worker))
    for telemetry in (of_gateway, of_worker):
        await asyncio.to_thread(telemetry.shutdown)


async def test_an_answer_is_one_trace_from_the_client_to_the_engine(system: System) -> None:
    """Each stage of the gateway, the worker's call, and the engine's phases in their order."""
    _, error = await system.gateway.generate(text_request(model="sim"), metadata=METADATA)
    assert error is None
    expected = [GATEWAY, ["validate", "queue", "route", "text_completion sim", [WORKER, PHASES]]]
    assert expected == await system.tree()
    spans = {span.span.name: span for span in system.collector.in_trace(TRACE_ID)}
    assert {"gateway", "worker"} == {span.service for span in spans.values()}
    assert ("ok", 1, 8) == (
        spans[GATEWAY].attributes["tidegate.outcome"],
        spans[GATEWAY].attributes["tidegate.attempts"],
        spans[GATEWAY].attributes["gen_ai.usage.output_tokens"],
    )
    assert system.worker.worker.address == spans["route"].attributes["server.address"]
    assert spans["route"].attributes["tidegate.route.available_blocks"]
    for earlier, later in pairwise(PHASES):
        assert spans[earlier].span.end_time_unix_nano == spans[later].span.start_time_unix_nano


async def test_a_call_that_its_client_leaves_is_closed_to_the_engine(system: System) -> None:
    """The same tree; the engine's phases are as seen from outside."""
    call = system.gateway.stub.Generate(text_request(model="sim", max_output_tokens=3000), metadata=METADATA)
    for _ in range(3):
        await call.read()
    call.cancel()
    expected = [
        GATEWAY,
        ["validate", "queue", "route", "text_completion sim", [WORKER, ["engine.prefill", "engine.decode"]]],
    ]
    assert expected == await system.tree()
    spans = {span.span.name: span for span in system.collector.in_trace(TRACE_ID)}
    assert "cancelled" == spans[GATEWAY].attributes["tidegate.outcome"]
    assert "CANCELLED" == spans[WORKER].attributes["rpc.response.status_code"]
    assert spans["engine.decode"].attributes["tidegate.phase.is_measured"] is False


async def test_an_invalid_request_ends_with_its_validation(system: System) -> None:
    """No stage after it is entered; the reason stands on the stage and on the call."""
    await system.gateway.error(text_request(model="sim", temperature=7), metadata=METADATA)
    assert [GATEWAY, ["validate"]] == await system.tree()
    call, validate = system.collector.in_trace(TRACE_ID)
    assert ("INVALID_REQUEST", "INVALID_REQUEST") == (
        call.attributes["tidegate.outcome"],
        validate.attributes["error.type"],
    )


async def test_nothing_of_what_was_asked_or_answered_is_in_a_span(system: System) -> None:
    """Names and numbers only."""
    responses, _ = await system.gateway.generate(text_request("secretive", model="sim"), metadata=METADATA)
    await system.tree()
    words = [piece.strip() for response in responses for piece in response.delta.text if len(piece.strip()) > 4]
    written = "".join(str(span.span) for span in system.collector.in_trace(TRACE_ID))
    assert [] == [word for word in ("secretive", *words) if word in written]


async def test_every_span_ends(system: System) -> None:
    """Of calls that were answered, refused and cancelled; what is open is the watch of loads."""
    await system.gateway.generate(text_request(model="sim"), metadata=METADATA)
    await system.gateway.error(text_request(model="nothing"), metadata=METADATA)
    call = system.gateway.stub.Generate(text_request(model="sim", max_output_tokens=3000), metadata=METADATA)
    await call.read()
    call.cancel()
    await system.tree()
    assert 0 == system.live_spans


async def test_a_refusal_and_the_attempt_after_it_stand_side_by_side(stack: AsyncExitStack) -> None:
    """A worker without room, then the wait for another one, and that one's call."""
    collector = await stack.enter_async_context(collecting())
    telemetry = collector.telemetry("gateway")
    full, free = ScriptedWorker(scripts=[[at_capacity()]]), ScriptedWorker()
    free.load.free_block_count = 1  # so that the other one is asked first
    for worker in (full, free):
        await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(full.target, free.target, telemetry=telemetry))
    _, error = await gateway.generate(text_request(), metadata=METADATA)
    assert error is None
    await gateway.gateway.until_idle()
    await flush(telemetry)
    attempt = "text_completion m"
    expected = [GATEWAY, ["validate", "queue", "route", attempt, "queue", "route", attempt]]
    assert expected == collector.tree(TRACE_ID, CALLER_ID)
    first, second = [span for span in collector.in_trace(TRACE_ID) if span.span.name == attempt]
    assert [(1, "refused", "AT_CAPACITY"), (2, "success", None)] == [
        (
            span.attributes["tidegate.attempt.number"],
            span.attributes["tidegate.attempt.outcome"],
            span.attributes.get("error.type"),
        )
        for span in (first, second)
    ]
    await asyncio.to_thread(telemetry.shutdown)


async def test_a_continued_call_is_one_trace(stack: AsyncExitStack, data_plane: str) -> None:
    """The lost worker's attempt ends with its error; the continuation and the attempt that goes on stand beside it."""
    collector = await stack.enter_async_context(collecting())
    telemetry = collector.telemetry("gateway")
    lost = ScriptedWorker(scripts=[[*beginning("a", "b"), grpc.StatusCode.UNAVAILABLE]], can_continue=True)
    finished = generation_pb2.Finished(
        reason=generation_pb2.FINISH_REASON_STOP, usage=generation_pb2.Usage(output_token_count=3)
    )
    delta = generation_pb2.Delta(text=["c"], token_ids=[2])
    rest = ScriptedWorker(scripts=[[Response(delta=delta), Response(finished=finished)]], can_continue=True)
    rest.load.pending_prefill_token_count = 10_000  # so that the other one is asked first
    for worker in (lost, rest):
        await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(lost.target, rest.target, telemetry=telemetry))
    open_before = live(telemetry)
    responses, error = await gateway.generate(text_request(), metadata=METADATA)
    assert (None, "abc") == (error, text_of(responses))
    await gateway.gateway.until_idle()
    await flush(telemetry)

    attempt = "text_completion m"
    expected = [GATEWAY, ["validate", "queue", "route", attempt, "continuation", "route", attempt]]
    assert expected == collector.tree(TRACE_ID, CALLER_ID)
    spans = collector.in_trace(TRACE_ID)
    routes = [span.attributes for span in spans if span.span.name == "route"]
    assert [[lost.target, rest.target], [rest.target]] == [one["tidegate.route.candidates"] for one in routes]
    first, second = routes[0]["tidegate.route.candidates.predicted_first_token_s"]
    assert first < second
    assert [
        (1, lost.target, 0, 2, "failed", "UNAVAILABLE", trace_pb2.Status.STATUS_CODE_ERROR),
        (2, rest.target, 2, 1, "success", None, trace_pb2.Status.STATUS_CODE_UNSET),
    ] == [
        (
            span.attributes["tidegate.attempt.number"],
            span.attributes["server.address"],
            span.attributes["tidegate.attempt.continued_tokens"],
            span.attributes["gen_ai.usage.output_tokens"],
            span.attributes["tidegate.attempt.outcome"],
            span.attributes.get("error.type"),
            span.span.status.code,
        )
        for span in spans
        if span.span.name == attempt
    ]
    (call,) = [span for span in spans if span.span.name == GATEWAY]
    assert ["tidegate.worker_lost"] == [event.name for event in call.span.events]
    assert ("ok", 2, 3) == (
        call.attributes["tidegate.outcome"],
        call.attributes["tidegate.attempts"],
        call.attributes["gen_ai.usage.output_tokens"],
    )
    assert open_before == live(telemetry)
    await asyncio.to_thread(telemetry.shutdown)


async def test_a_pause_that_ends_in_vain_closes_its_spans(stack: AsyncExitStack, data_plane: str) -> None:
    """Nobody has room to go on: refused attempts and waits stand under the call, which ends with the reason."""
    collector = await stack.enter_async_context(collecting())
    telemetry = collector.telemetry("gateway")
    worker = ScriptedWorker(
        scripts=[[*beginning("a"), grpc.StatusCode.UNAVAILABLE], [at_capacity()]], can_continue=True
    )
    await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(worker.target, telemetry=telemetry, max_pause_s=0.1))
    open_before = live(telemetry)
    error = await gateway.error(text_request(), metadata=METADATA)
    assert "paused_too_long" == error.metadata["not_continued"]
    await gateway.gateway.until_idle()
    await flush(telemetry)
    ((name, below),) = [collector.tree(TRACE_ID, CALLER_ID)]
    assert (GATEWAY, ["validate", "queue", "route", "text_completion m", "continuation"]) == (name, below[:5])
    (call,) = [span for span in collector.in_trace(TRACE_ID) if span.span.name == GATEWAY]
    assert "STREAM_INTERRUPTED" == call.attributes["tidegate.outcome"]
    assert open_before == live(telemetry)
    await asyncio.to_thread(telemetry.shutdown)


@pytest.mark.parametrize("data_plane", ["http2", "grpc"])
async def test_what_a_gateway_does_not_record_its_worker_does_not(
    stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch, data_plane: str
) -> None:
    """Though the worker would record all that it is told to: there are no traces that begin with a worker."""
    collector = await stack.enter_async_context(collecting())
    of_worker = collector.telemetry("worker", begins_traces=False)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    of_gateway = collector.telemetry("gateway")
    worker = await stack.enter_async_context(running_worker(telemetry=of_worker))
    gateway = await stack.enter_async_context(
        running_gateway(worker.worker.address, telemetry=of_gateway, data_plane=data_plane)
    )
    for metadata in ((), METADATA):  # the caller of the second one records it
        _, error = await gateway.generate(text_request(model="sim"), metadata=metadata)
        assert error is None
    system = System(collector=collector, gateway=gateway, worker=worker, telemetries=(of_gateway, of_worker))
    assert [GATEWAY, ["validate", "queue", "route", "text_completion sim", [WORKER, PHASES]]] == await system.tree()
    for telemetry in system.telemetries:
        await asyncio.to_thread(telemetry.shutdown)
    assert {TRACE_ID} == {span.span.trace_id.hex() for span in collector.spans}


async def test_no_worker_is_a_trace_of_its_own(stack: AsyncExitStack) -> None:
    """Refused at the door: the call alone, with its reason."""
    collector = await stack.enter_async_context(collecting())
    telemetry = collector.telemetry("gateway")
    gateway = await stack.enter_async_context(running_gateway("127.0.0.1:1", ready=0, telemetry=telemetry))
    error = await gateway.error(inference_service_pb2.GenerateRequest(model="m", text="hi"), metadata=METADATA)
    assert "NO_WORKER_AVAILABLE" == error.reason
    await gateway.gateway.until_idle()
    await flush(telemetry)
    assert [GATEWAY] == collector.tree(TRACE_ID, CALLER_ID)
    (call,) = collector.in_trace(TRACE_ID)
    assert ("NO_WORKER_AVAILABLE", "UNAVAILABLE") == (
        call.attributes["tidegate.outcome"],
        call.attributes["rpc.response.status_code"],
    )
    await asyncio.to_thread(telemetry.shutdown)
