"""Sends a trace's requests to a gateway over gRPC, each when it is due, whatever became of those before it.

A request asks for ``MAX_OUTPUT_TOKENS`` and ends earlier: a stop token is forbidden until the true length is reached
(``min_output_tokens``) and certain from then on (``logit_bias``). Gateway and ledger do not read the true length off
that: they go by ``max_output_tokens``.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import grpc
import grpc.aio

from bench.overload.score import Answer
from bench.overload.trace import MAX_OUTPUT_TOKENS, Arrival
from tidegate.inference.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc, model_pb2
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError

_TIMEOUT_S = 120.0
_CERTAIN_BIAS = 100.0
# Refusals of requests that had been let wait. All others are answers to an arrival.
_AFTER_WAITING = ("KV_EXHAUSTED", "EVICTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What one client process has to do.

    ``starts_at`` is in seconds of ``time.time``, of which a second of the trace lasts ``time_scale``.
    """

    target: str
    arrivals: tuple[tuple[int, Arrival], ...]  # by their number in the trace
    starts_at: float
    time_scale: float
    prompts: str  # seeds them: different traces have no prompt in common


def run_errand(errand: Errand) -> list[tuple[int, Answer]]:
    """The answers, in trace time. Blocks: run it in a process of its own."""
    return asyncio.run(send(errand))


async def send(errand: Errand) -> list[tuple[int, Answer]]:
    """As ``run_errand``, in a loop that runs already."""
    async with grpc.aio.insecure_channel(errand.target, options=CHANNEL_OPTIONS) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        model = (await stub.ListModels(inference_service_pb2.ListModelsRequest(), timeout=_TIMEOUT_S)).models[0]
        caller = _Caller(stub, model, errand)
        async with asyncio.TaskGroup() as tasks:
            calls = [(number, tasks.create_task(caller.call(number, arrival))) for number, arrival in errand.arrivals]
        return [(number, call.result()) for number, call in calls]


class _Caller:
    def __init__(
        self, stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, model: model_pb2.Model, errand: Errand
    ) -> None:
        self._stub = stub
        self._model = model.name
        self._vocabulary_size = model.limits.vocabulary_size
        self._errand = errand
        self._loop = asyncio.get_running_loop()
        self._zero = self._loop.time() + errand.starts_at - time.time()

    async def call(self, number: int, arrival: Arrival) -> Answer:
        """Make the call when it is due."""
        request = self._request(number, arrival)
        await asyncio.sleep(self._zero + arrival.arrival_s * self._errand.time_scale - self._loop.time())
        answer = Answer(arrival_s=arrival.arrival_s)
        call = self._stub.Generate(request, timeout=_TIMEOUT_S * self._errand.time_scale)
        try:
            async for response in call:
                self._note(response, answer)
        except grpc.aio.AioRpcError as error:
            self._note_error(error, answer)
        return answer

    def _request(self, number: int, arrival: Arrival) -> inference_service_pb2.GenerateRequest:
        rng = random.Random(f"{self._errand.prompts} {number}")
        last_token = self._vocabulary_size - 1
        return inference_service_pb2.GenerateRequest(
            model=self._model,
            token_ids=generation_pb2.TokenPrompt(
                ids=[rng.randrange(3, last_token) for _ in range(arrival.prompt_tokens)]
            ),
            sampling=generation_pb2.SamplingOptions(
                max_output_tokens=MAX_OUTPUT_TOKENS,
                min_output_tokens=arrival.output_tokens,
                temperature=1.0,
                stop_token_ids=(last_token,),
                logit_bias={last_token: _CERTAIN_BIAS},
            ),
            criticality=generation_pb2.Criticality.Value(f"CRITICALITY_{arrival.criticality}"),
            output=generation_pb2.OutputOptions(include_token_ids=True),
        )

    def _note(self, response: inference_service_pb2.GenerateResponse, answer: Answer) -> None:
        if response.delta.token_ids:
            answer.last_token_at = self._now()
            answer.output_tokens += len(response.delta.token_ids)
            if answer.first_token_at is None:
                answer.first_token_at = answer.last_token_at
        if response.HasField("finished"):
            answer.is_complete = True

    def _note_error(self, failure: grpc.aio.AioRpcError, answer: Answer) -> None:
        error = RpcError.from_call(failure)
        if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            answer.failure = f"{error.reason}: {error.message}"
            return
        answer.refused_at = self._now()
        answer.has_waited = error.reason in _AFTER_WAITING
        if error.retry_after_s is not None:
            answer.hint_s = error.retry_after_s / self._errand.time_scale

    def _now(self) -> float:
        return (self._loop.time() - self._zero) / self._errand.time_scale
