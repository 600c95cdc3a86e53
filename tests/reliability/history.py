"""What one client saw of one call, with times, as the checker needs it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import grpc.aio

from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.metadata import TENANT, TRACEPARENT
from tidegate.rpc.status import RpcError


@dataclass(kw_only=True)
class History:
    """One call. ``reason`` is FINISHED, or the reason of its error; times are in seconds of the monotonic clock.

    ``trace_id`` finds what the services recorded of it.
    """

    seed: int
    wanted_tokens: int
    tenant: str = ""
    trace_id: str = field(default_factory=lambda: os.urandom(16).hex())
    events: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    times: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    billed_prompt_tokens: int = 0
    billed_output_tokens: int = 0
    continuations: int = 0
    reasons: list[str] = field(default_factory=list)
    told: str = ""  # of its error

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two messages."""
        return max((later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)), default=0.0)

    @property
    def is_finished(self) -> bool:
        """Whether the call came to its good end."""
        return ["FINISHED"] == self.reasons


async def record(
    stub: inference_service_pb2_grpc.InferenceServiceAsyncStub,
    *,
    model: str,
    seed: int,
    tokens: int,
    tenant: str = "default",
    timeout_s: float = 120.0,
) -> History:
    """Make one call and write down what comes."""
    history = History(seed=seed, wanted_tokens=tokens, tenant=tenant)
    request = inference_service_pb2.GenerateRequest(model=model, text=f"Story number {seed}")
    request.sampling.seed = seed
    request.sampling.max_output_tokens = request.sampling.min_output_tokens = tokens
    request.output.include_token_ids = True
    try:
        async for response in stub.Generate(request, timeout=timeout_s, metadata=call_metadata(history)):
            _note(history, response)
    except grpc.aio.AioRpcError as error:
        rpc_error = RpcError.from_call(error)
        history.reasons.append(rpc_error.reason or rpc_error.code.name)
        history.told = f"{rpc_error.message} {dict(rpc_error.metadata)}"
    else:
        history.reasons.append("FINISHED" if "finished" == history.events[-1:][0] else "ENDED_WITHOUT_FINISHED")
    return history


def call_metadata(history: History) -> tuple[tuple[str, str], ...]:
    """What a client sends beside its request: whose it is, and a trace of its own that is sampled."""
    return ((TENANT, history.tenant), (TRACEPARENT, f"00-{history.trace_id}-{os.urandom(8).hex()}-01"))


def _note(history: History, response: inference_service_pb2.GenerateResponse) -> None:
    history.times.append(time.monotonic())
    kind = response.WhichOneof("event") or "nothing"
    history.events.append(kind)
    if kind == "started":
        history.prompt_tokens = response.started.prompt_token_count
    elif kind == "delta":
        history.token_ids.extend(response.delta.token_ids)
        history.text += "".join(response.delta.text)
    elif kind == "finished":
        usage = response.finished.usage
        history.billed_prompt_tokens = usage.prompt_token_count
        history.billed_output_tokens = usage.output_token_count
        history.continuations = response.finished.continuation_count
