"""What a request costs the gateway in CPU time, stage by stage, and as a whole process that serves.

    python -m bench.request_cost

The stages run in this process, on the gateway's own code, best of several rounds: the figures hold on a busy machine,
as far as its caches do. The whole is that of a gateway between `sim` and a client, by the kernel's count. What is left
of it beside the stages is for the smaller part tasks, timers and sockets; for the larger one it is the same stages,
which take longer where each comes once for a request, between others, than over and over in a loop of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import grpc.aio
from grpc import StatusCode

from bench.data_plane import handshake
from bench.data_plane.accounting import ProcessTree
from bench.data_plane.processes import announced
from gateway.call import Call
from gateway.intake import Intake
from gateway.jobs import PreparedRequest, parse
from gateway.journal import Journal
from gateway.model import ServedModel
from gateway.passage import Passage
from gateway.policy.load import WorkerLoad
from gateway.policy.outcomes import Outcome
from gateway.policy.quota import Quotas
from gateway.policy.tenants import Tenants
from gateway.policy.waiting_line import WaitingLine
from gateway.prompt_tokenizer import PromptTokenizer
from gateway.records import Records
from gateway.renderer import Renderer
from gateway.request import parse_generate
from gateway.resume import ResumeTokens
from gateway.waiting_room import WaitingRoom
from gateway.workers.client import WorkerClient
from gateway.workers.fleet import Fleet
from tidegate.http2 import frames
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.fields import Fields, encode
from tidegate.http2.grpc_status import Status
from tidegate.http2.messages import framed
from tidegate.http2.relay import Relay
from tidegate.http2.request_head import parse_head, request_fields
from tidegate.http2.server_call import RESPONSE_HEAD, ServerCall
from tidegate.http2.streams import Stream, StreamHandler
from tidegate.inference.v1 import chat_pb2, generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tidegate.native.choice import CHOICE
from tidegate.rpc.served_calls import ServedCalls
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.telemetry.labels import BoundedLabels
from tidegate.telemetry.setup import Telemetry

_ROUNDS, _REPEATS = 7, 1000
_PROMPT_TOKENS, _AT_ONCE = 100, 16
_METHOD = "tidegate.inference.v1.InferenceService/Generate"
_WIDE = 2**30


def best_us(stage: Callable[[], object]) -> float:
    """CPU microseconds of one call."""
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_REPEATS):
            stage()
        best = min(best, time.process_time() - began)
    return best / _REPEATS * 1e6


class Requests:
    """Chats of a hundred tokens, in words that come again and an order that does not."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._words = handshake.prompt(_PROMPT_TOKENS).split(" ")
        self._rng = random.Random(7)
        self._numbers = count()

    def next(self) -> inference_service_pb2.GenerateRequest:
        """One that was not seen before."""
        self._rng.shuffle(self._words)
        request = inference_service_pb2.GenerateRequest(model=self._model)
        text = f"Request {next(self._numbers) % 100}. {' '.join(self._words)}"
        request.chat.messages.add(role=chat_pb2.CHAT_ROLE_USER, content=text)
        request.sampling.max_output_tokens = request.sampling.min_output_tokens = 1
        return request

    def serialised(self, number: int) -> list[bytes]:
        """So many of them."""
        return [self.next().SerializeToString() for _ in range(number)]


def preparation_us(model: ServedModel, tokenizer: PromptTokenizer) -> dict[str, float]:
    """Validation, rendering, tokenising, and what else has to be known of a request before it is let in."""
    models = {model.name: model}
    batch = Requests(model.name).serialised(_REPEATS)
    parsed = [parse(raw) for raw in batch]
    chats = [parse_generate(request, models).prompt for request in parsed]
    tokens = ResumeTokens([], lifetime_s=1.0)
    renderer, turn = model.renderer, count()

    def following() -> int:
        return next(turn) % _REPEATS

    def prepare() -> PreparedRequest:
        return PreparedRequest.from_public(
            batch[following()], models, response_id="r" * 32, tenant="default", resume_tokens=tokens
        )

    texts = [renderer.render(chat) for chat in chats if not isinstance(chat, (str, tuple))]
    validate = best_us(lambda: parse_generate(parse(batch[following()]), models))
    tokenise = best_us(lambda: tokenizer.encode(texts[following()]))
    render = best_us(lambda: renderer.prompt(chats[following()])) - tokenise  # type: ignore[arg-type]
    whole = best_us(prepare)
    return {
        "parse and validate": validate,
        "render the chat template": render,
        "tokenise 100 tokens": tokenise,
        "digests, limits, the prepared request": whole - validate - render - tokenise,
    }


class Site:
    """One gateway's policies with one idle worker, and its records. Make it inside a running event loop."""

    def __init__(self, model: ServedModel) -> None:
        self.telemetry = Telemetry.silent()
        self.records = Records(self.telemetry, Journal(), BoundedLabels())
        self.calls = ServedCalls(self.telemetry)
        self.fleet = Fleet(random.Random(1))
        tenants = Tenants({}, trusts_claims=False, max_tenants=1)
        intake = Intake(self.fleet, Quotas(tenants, gateways=1), max_wait_s=10.0)
        self.room = WaitingRoom(
            self.fleet,
            intake,
            lambda: WaitingLine(max_bytes=2**26, max_wait_s=10.0, weights=tenants.weights, rng=random.Random(2)),
        )
        load = WorkerLoad(
            received_at=time.monotonic() + 3600.0,
            block_size=16,
            total_blocks=2**20,
            free_blocks=2**20,
            reserved_blocks=0,
            running_requests=0,
            pending_prefill_tokens=0,
            prefill_tokens_per_s=1e5,
            decode_tokens_per_s=1e4,
            is_draining=False,
        )
        self.fleet.join(WorkerClient("127.0.0.1:1"), model, load)
        batch = Requests(model.name).serialised(1)[0]
        self.prepared = PreparedRequest.from_public(
            batch,
            {model.name: model},
            response_id="r" * 32,
            tenant="default",
            resume_tokens=ResumeTokens([], lifetime_s=1.0),
        )

    def route(self) -> None:
        """A place, a worker, the first token, the end, and what is learned from it."""
        call = Call.begin((), client_s=None, max_duration_s=60.0)
        place = self.room.place(self.prepared, call)
        lease = place.lease_at_once()
        if lease is None:
            raise RuntimeError("the worker has no room")
        lease.begin()
        lease.close(Outcome.SUCCESS, output_tokens=1, cached_tokens=0)
        place.end(_FINISHED, output_tokens=1)

    def record(self) -> None:
        """Metrics and the journal."""
        served = self.calls.begin(_METHOD, ())
        record = self.records.begin(Call.begin((), client_s=None, max_duration_s=60.0))
        record.prepared(self.prepared, Passage())
        record.begin_wait()
        record.end_wait()
        record.first_token()
        record.__exit__(None, None, None)
        served.end(StatusCode.OK)

    def job(self) -> bytes:
        """The worker's request."""
        load = self.fleet.seats[0].load
        return self.prepared.job(self.prepared.budget(load, remaining_s=60.0))


_FINISHED = generation_pb2.Finished(reason=generation_pb2.FINISH_REASON_STOP)
_FINISHED.usage.output_token_count = 1


class Wires:
    """A connection to a client and one to a worker, without sockets."""

    def __init__(self) -> None:
        self._calls: list[ServerCall] = []
        self._down = Connection(Endpoint(role=Role.SERVER, clock=time.monotonic), wake=_nothing, accept=self._accept)
        self._up = Connection(Endpoint(role=Role.CLIENT, clock=time.monotonic), wake=_nothing, accept=_refuse)
        self._down.receive(frames.PREFACE + frames.settings({4: _WIDE}))
        self._up.receive(frames.settings({}))
        self._ids = count(1, 2)
        self._request = encode(request_fields(f"/{_METHOD}", authority="localhost", is_tls=False))
        self._head = encode((*RESPONSE_HEAD, (b"tidegate-load-sample", b"17")))
        self._trailers = encode(Status(code=StatusCode.OK).fields())
        self._answer = framed(bytes(30))

    def relay(self) -> None:
        """One request from head to trailers, with two messages of answer."""
        id_ = next(self._ids)
        message = framed(bytes(400))
        self._down.receive(
            frames.header_block(id_, self._request, end_stream=False)
            + frames.header(frames.DATA, frames.END_STREAM, id_, len(message))
            + message
        )
        call = self._calls.pop()
        relay = Relay(call, on_messages=_unchanged)
        relay.stream = self._up.open_stream(encode(request_fields(f"/{_METHOD}", authority="w", is_tls=False)), relay)
        relay.stream.send_data(message, end_stream=True)
        self._up.take_output()
        data = frames.header(frames.DATA, 0, id_, len(self._answer)) + self._answer
        self._up.receive(
            frames.header_block(id_, self._head, end_stream=False)
            + data
            + data
            + frames.header_block(id_, self._trailers, end_stream=True)
        )
        relay.cancel()
        call.finish(Status(code=StatusCode.OK))
        self._down.take_output()
        self._down.outbound.window = self._up.outbound.window = _WIDE

    def _accept(self, stream: Stream, fields: Fields, end_stream: bool) -> ServerCall:  # noqa: FBT001 - Acceptor
        del end_stream
        head = parse_head(fields, max_list_bytes=2**14)
        loop = asyncio.get_running_loop()
        call = ServerCall(stream, head, peer="", max_message_bytes=2**20, on_end=lambda call: None, loop=loop)
        self._calls.append(call)
        return call


async def stages_us() -> Mapping[str, float]:
    """All stages, in the order in which a request passes them."""
    folder = handshake.MODEL_DIR
    files = (folder / "tokenizer.json", folder / "chat_template.jinja", folder / "tokenizer_config.json")
    renderer = Renderer.from_files(files[0].read_bytes(), files[1].read_text(), files[2].read_bytes())
    model = ServedModel.from_handshake(handshake.model_response(), renderer)
    tokenizer = PromptTokenizer(files[0].read_bytes(), json.loads(files[2].read_bytes()), files[1].read_text())
    site = Site(model)
    return {
        "HTTP/2, both sides, without sockets": best_us(Wires().relay),
        **preparation_us(model, tokenizer),
        "admit, route, settle": best_us(site.route),
        "the worker's request": best_us(site.job),
        "metrics and journal": best_us(site.record),
    }


async def whole_us(requests: int) -> float:
    """CPU of a gateway's process for each of so many requests, 16 at a time."""
    with tempfile.TemporaryDirectory() as folder:
        worker = ["-m", "worker", "--engine=sim", "--sim-time-scale=0.01", "--listen=127.0.0.1:0", "--admin-listen="]
        with announced([sys.executable, *worker], Path(folder) / "worker.log") as (_, worker_address):
            gateway = ["-m", "gateway", "--listen=127.0.0.1:0", f"--workers={worker_address}", "--admin-listen="]
            with announced([sys.executable, *gateway], Path(folder) / "gateway.log") as (pid, address):
                return await _loaded_us(address, ProcessTree(pid=pid), requests)


async def _loaded_us(address: str, gateway: ProcessTree, requests: int) -> float:
    made = Requests("sim")
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)

        async def some(number: int) -> None:
            for _ in range(number):
                async for _ in stub.Generate(made.next(), wait_for_ready=True):
                    pass

        while True:
            try:
                await some(1)
                break
            except grpc.aio.AioRpcError:  # it listens before it has shaken hands with its worker
                await asyncio.sleep(0.1)
        await asyncio.gather(*(some(30) for _ in range(_AT_ONCE)))
        began = gateway.cpu_s()
        await asyncio.gather(*(some(requests // _AT_ONCE) for _ in range(_AT_ONCE)))
        return (gateway.cpu_s() - began) / (requests // _AT_ONCE * _AT_ONCE) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3200)
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    stages = asyncio.run(stages_us())
    whole = min(asyncio.run(whole_us(options.requests)) for _ in range(3))
    print(f"{CHOICE.words}; CPU microseconds for a request")
    for name, cost in (*stages.items(), ("the rest: sockets, tasks, cold caches", whole - sum(stages.values()))):
        print(f"| {name} | {cost:.0f} |")
    print(f"| a whole gateway, {_AT_ONCE} at a time | {whole:.0f} |")


def _nothing() -> None:
    pass


def _unchanged(messages: bytes) -> bytes:
    return messages


def _refuse(stream: Stream, fields: Fields, end_stream: bool) -> StreamHandler:  # noqa: FBT001 - Acceptor
    raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "no requests here")


if __name__ == "__main__":
    main()
