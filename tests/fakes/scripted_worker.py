"""A worker's API on a real port, without an engine: each call of Generate plays the next script."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format

from tidegate.inference.v1 import generation_pb2, inference_service_pb2, model_pb2
from tidegate.rpc.metadata import LOAD_SAMPLE
from tidegate.rpc.server import ErrorInterceptor
from tidegate.rpc.status import WORKER_DOMAIN, RpcError, Violation
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

Response = inference_service_pb2.GenerateResponse
Context = grpc.aio.ServicerContext[Any, Any]

HANG = "hang"
Script = Sequence[Response | RpcError | grpc.StatusCode | asyncio.Event | str]
"""Responses in order. An error ends the call, a bare code as a lost connection does; ``HANG`` waits for ever.

An event is waited for.
"""

# A tokenizer, a template and canaries that belong together.
_CHECKPOINT = Path("worker/sim_model")


def answer(*pieces: str, finish: bool = True) -> Script:
    """A complete answer of one token for each piece; without ``finish`` it ends in a bare OK."""
    finished = generation_pb2.Finished(
        reason=generation_pb2.FINISH_REASON_STOP, usage=generation_pb2.Usage(output_token_count=len(pieces))
    )
    return [*beginning(*pieces), *([Response(finished=finished)] if finish else [])]


def beginning(*pieces: str) -> list[Response]:
    """An answer as far as it has come."""
    started = generation_pb2.Started(response_id="r", model="m", prompt_token_count=3)
    deltas = (generation_pb2.Delta(text=[piece], token_ids=[number]) for number, piece in enumerate(pieces))
    return [Response(started=started), *(Response(delta=delta) for delta in deltas)]


def refusal(
    code: grpc.StatusCode,
    reason: str,
    *,
    retry_after_s: float | None = None,
    violations: Sequence[Violation] = (),
) -> RpcError:
    """An error as a worker sends it."""
    return RpcError(
        code=code,
        reason=reason,
        domain=WORKER_DOMAIN,
        message=f"{reason} said",
        retry_after_s=retry_after_s,
        violations=violations,
    )


def at_capacity(retry_after_s: float = 0.5) -> RpcError:
    """The ledger has no room."""
    return refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "AT_CAPACITY", retry_after_s=retry_after_s)


def load_report(**fields: Any) -> worker_service_pb2.LoadReport:
    """The load of an idle worker of 64 blocks of 16 tokens; ``fields`` go over what stands here."""
    report = worker_service_pb2.LoadReport(total_block_count=64, free_block_count=64, block_size=16)
    report.MergeFrom(worker_service_pb2.LoadReport(**fields))
    return report


class _ScriptedError(Exception):
    def __init__(self, error: RpcError) -> None:
        super().__init__(error.reason)
        self.error = error


def _to_rpc(error: Exception) -> RpcError:
    if not isinstance(error, _ScriptedError):
        raise error
    return error.error


def _canaries() -> list[worker_service_pb2.Canary]:
    parsed = json_format.Parse(
        f'{{"canaries": {(_CHECKPOINT / "canaries.json").read_text(encoding="utf-8")}}}',
        worker_service_pb2.GetModelResponse(),
    )
    return list(parsed.canaries)


@dataclass
class ScriptedWorker(worker_service_pb2_grpc.WorkerServiceServicer):
    """Plays ``scripts`` one after the other, the last one again and again; remembers what it was asked."""

    scripts: list[Script] = field(default_factory=lambda: [answer("Paris", ".")])
    name: str = "m"
    checkpoint_sha256: str = "c" * 64
    tokenizer_json: bytes = field(default_factory=(_CHECKPOINT / "tokenizer.json").read_bytes)
    canaries: list[worker_service_pb2.Canary] = field(default_factory=_canaries)
    load: worker_service_pb2.LoadReport = field(default_factory=load_report)
    sample_number: int = 0
    heartbeat_s: float = 0.5  # between load reports when nothing changes
    jobs: list[worker_service_pb2.GenerateRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    time_remaining_s: list[float] = field(default_factory=list)
    can_continue: bool = False
    suspects: list[worker_service_pb2.Suspect] = field(default_factory=list)
    handshakes: int = 0
    tokenizer_fetches: int = 0
    called: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    target: str = ""
    _pushes: int = 0
    _watches_end: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def push(self, **fields: Any) -> None:
        """Send a load report with ``fields`` to all that watch."""
        async with self._changed:
            self.load = load_report(**fields)
            self._pushes += 1
            self._changed.notify_all()

    async def end_watches(self) -> None:
        """End all load watches with OK."""
        async with self._changed:
            self._watches_end.set()
            self._changed.notify_all()
            self._watches_end = asyncio.Event()

    async def Generate(self, request: worker_service_pb2.GenerateRequest, context: Context) -> AsyncIterator[Response]:
        self.jobs.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata() or ()})
        self.time_remaining_s.append(context.time_remaining() or 0.0)
        self.called.set()
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if script and isinstance(script[0], Response):  # it is admitted
            await context.send_initial_metadata(((LOAD_SAMPLE, str(self.sample_number)),))
        try:
            for step in script:
                if isinstance(step, RpcError):
                    raise _ScriptedError(step)
                if isinstance(step, grpc.StatusCode):
                    await context.abort(step, "connection lost")
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, str):
                    await asyncio.Event().wait()
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):  # wherever in the script the cancel arrives
            self.cancelled.set()
            raise

    async def WatchLoad(
        self, request: worker_service_pb2.WatchLoadRequest, context: Context
    ) -> AsyncIterator[worker_service_pb2.WatchLoadResponse]:
        end = self._watches_end
        while not end.is_set():
            self.sample_number += 1
            pushes = self._pushes
            report = worker_service_pb2.LoadReport(sample_number=self.sample_number)
            report.MergeFrom(self.load)
            yield worker_service_pb2.WatchLoadResponse(load_report=report)
            try:
                async with asyncio.timeout(self.heartbeat_s), self._changed:
                    await self._changed.wait_for(lambda: self._pushes != pushes or end.is_set())  # noqa: B023
            except TimeoutError:
                pass

    async def GetModel(
        self, request: worker_service_pb2.GetModelRequest, context: Context
    ) -> worker_service_pb2.GetModelResponse:
        self.handshakes += 1
        template = (_CHECKPOINT / "chat_template.jinja").read_bytes()
        return worker_service_pb2.GetModelResponse(
            model=model_pb2.Model(
                name=self.name,
                limits=model_pb2.ModelLimits(
                    context_length=1000,
                    max_output_tokens=999,
                    default_max_output_tokens=100,
                    vocabulary_size=352,
                    kv_pool_token_count=self.load.total_block_count * self.load.block_size,
                ),
                digests=model_pb2.ModelDigests(
                    checkpoint_sha256=self.checkpoint_sha256,
                    tokenizer_sha256=hashlib.sha256((_CHECKPOINT / "tokenizer.json").read_bytes()).hexdigest(),
                    chat_template_sha256=hashlib.sha256(template).hexdigest(),
                ),
                capabilities=model_pb2.ModelCapabilities(chat=True, constraint_kinds=[model_pb2.CONSTRAINT_KIND_REGEX]),
            ),
            canaries=self.canaries,
            block_size=self.load.block_size,
            engine="scripted",
            supports_continuation=self.can_continue,
        )

    async def Drain(
        self, request: worker_service_pb2.DrainRequest, context: Context
    ) -> worker_service_pb2.DrainResponse:
        await self.push(is_draining=True)
        return worker_service_pb2.DrainResponse()

    async def ShareSuspects(
        self, request: worker_service_pb2.ShareSuspectsRequest, context: Context
    ) -> worker_service_pb2.ShareSuspectsResponse:
        self.suspects.extend(request.suspects)
        return worker_service_pb2.ShareSuspectsResponse()

    async def GetTokenizer(
        self, request: worker_service_pb2.GetTokenizerRequest, context: Context
    ) -> AsyncIterator[worker_service_pb2.GetTokenizerResponse]:
        self.tokenizer_fetches += 1
        kinds = worker_service_pb2.TokenizerFile
        for kind, content in (
            (kinds.TOKENIZER_FILE_TOKENIZER_JSON, self.tokenizer_json),
            (kinds.TOKENIZER_FILE_CHAT_TEMPLATE, (_CHECKPOINT / "chat_template.jinja").read_bytes()),
            (kinds.TOKENIZER_FILE_TOKENIZER_CONFIG, (_CHECKPOINT / "tokenizer_config.json").read_bytes()),
        ):
            for start in range(0, len(content), 4096):
                yield worker_service_pb2.GetTokenizerResponse(file=kind, data=content[start : start + 4096])


@asynccontextmanager
async def serving(worker: ScriptedWorker, *, target: str = "127.0.0.1:0") -> AsyncIterator[ScriptedWorker]:
    """Serve ``worker``, at ``worker.target`` from then on."""
    interceptors = [ErrorInterceptor(_to_rpc, logging.getLogger(__name__))]
    server = grpc.aio.server(interceptors=interceptors, options=(("grpc.so_reuseport", 0),))
    worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(worker, server)
    worker.target = f"127.0.0.1:{server.add_insecure_port(target)}"
    await server.start()
    try:
        yield worker
    finally:
        await server.stop(0)
