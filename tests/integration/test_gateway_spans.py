from __future__ import annotations

import json
from contextlib import AsyncExitStack

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from tests.fakes.running_gateway import running_gateway, text_request
from tests.fakes.scripted_worker import HANG, ScriptedWorker, answer, at_capacity, beginning, refusal, serving
from tests.fakes.spans import KeptSpans
from tidegate.telemetry.logs import JsonFormatter
from tidegate.telemetry.otlp import write

pytestmark = pytest.mark.usefixtures("data_plane")

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
METADATA = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"), ("tracestate", "vendor=1"))


async def test_each_attempt_has_a_span_below_the_calls(stack: AsyncExitStack) -> None:
    """One trace from the client to the worker that answered."""
    full, free = ScriptedWorker(scripts=[[at_capacity()]]), ScriptedWorker(scripts=[answer("a", "b")])
    free.load.free_block_count = 1
    for worker in (full, free):
        await stack.enter_async_context(serving(worker))
    recording = KeptSpans()
    gateway = await stack.enter_async_context(running_gateway(full.target, free.target, tracer=recording.tracer))
    await gateway.generate(text_request(), metadata=METADATA)
    await gateway.gateway.until_idle()
    server = recording.spans[0]
    first, second = [span for span in recording.spans if span.name == "text_completion m"]
    assert {TRACE_ID} == {span.trace_id.hex() for span in recording.spans}
    for number, (span, worker) in enumerate(((first, full), (second, free)), start=1):
        assert server.span_id == span.parent_id
        assert f"00-{TRACE_ID}-{span.span_id.hex()}-01" == worker.metadata[0]["traceparent"]
        assert "vendor=1" == worker.metadata[0]["tracestate"]
        assert (number, worker.target) == (
            span.attributes["tidegate.attempt.number"],
            span.attributes["server.address"],
        )
    assert ("refused", "AT_CAPACITY") == (
        first.attributes["tidegate.attempt.outcome"],
        first.attributes["error.type"],
    )
    assert ("success", 2, ("stop",)) == (
        second.attributes["tidegate.attempt.outcome"],
        second.attributes["gen_ai.usage.output_tokens"],
        second.attributes["gen_ai.response.finish_reasons"],
    )


async def test_an_attempt_whose_client_left_is_nobodys_failure(stack: AsyncExitStack) -> None:
    """The span ends, with what was sent and without an error."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[*beginning("a"), HANG]])))
    recording = KeptSpans()
    gateway = await stack.enter_async_context(running_gateway(worker.target, tracer=recording.tracer))
    call = gateway.stub.Generate(text_request())
    await call.read()
    await call.read()
    call.cancel()
    await gateway.gateway.until_idle()
    (span,) = [span for span in recording.spans if span.name == "text_completion m"]
    assert ("ignored", 1) == (
        span.attributes["tidegate.attempt.outcome"],
        span.attributes["gen_ai.usage.output_tokens"],
    )
    assert not span.has_failed


async def test_no_span_holds_content(stack: AsyncExitStack) -> None:
    """Neither what was asked nor what was answered."""
    failing = ScriptedWorker(scripts=[[*beginning("answered-secret"), grpc.StatusCode.UNAVAILABLE]])
    await stack.enter_async_context(serving(failing))
    recording = KeptSpans()
    gateway = await stack.enter_async_context(running_gateway(failing.target, tracer=recording.tracer))
    await gateway.generate(text_request("asked-secret"))
    await gateway.gateway.until_idle()
    assert recording.spans
    assert "secret" not in str(ScopeSpans.FromString(b"".join(map(write, recording.spans))))


async def test_a_call_that_failed_by_our_fault_is_in_the_log_with_its_trace(
    stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """So that from the client's trace one comes to the line, and from the line to the trace."""
    caplog.handler.setFormatter(JsonFormatter())
    refused = refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_JOB")
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[refused]])))
    recording = KeptSpans()
    gateway = await stack.enter_async_context(running_gateway(worker.target, tracer=recording.tracer))
    assert "INTERNAL" == (await gateway.error(text_request(), metadata=METADATA)).reason
    await gateway.gateway.until_idle()
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (line,) = [line for line in lines if line["severity"] == "ERROR"]
    assert ("call failed: INTERNAL", TRACE_ID) == (line["message"], line["trace_id"])
    server = recording.spans[0]
    assert server.span_id.hex() == line["span_id"]
    assert "INVALID_JOB" in line["exception"]
