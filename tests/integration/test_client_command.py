"""The ``tidegate`` command as a process, against a scripted gateway."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import grpc
import pytest

from tests.fakes.inference_server import HANG, FakeInference, answer, refusal, serve
from tests.fakes.patience import PATIENCE_S
from tidegate.inference.v1.chat_pb2 import CHAT_ROLE_ASSISTANT, CHAT_ROLE_SYSTEM, CHAT_ROLE_USER
from tidegate.rpc.status import INFERENCE_DOMAIN, RpcError, Violation


@dataclass(frozen=True)
class _Ended:
    code: int
    out: str
    notes: str


async def _tidegate(*arguments: str, stdin: str = "", out: IO[bytes] | None = None) -> _Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidegate.client", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=out or asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        printed, notes = await process.communicate(stdin.encode(errors="surrogateescape"))
    assert process.returncode is not None
    return _Ended(process.returncode, (printed or b"").decode(), notes.decode())


@pytest.fixture
def service() -> FakeInference:
    """A gateway that answers "Paris."."""
    return FakeInference()


@pytest.fixture
async def target(service: FakeInference) -> AsyncIterator[str]:
    """Its address."""
    async with serve(service) as address:
        yield address


async def test_chat_prints_the_answer_and_nothing_else_on_stdout(service: FakeInference, target: str) -> None:
    """Statistics are on stderr; options reach the server; what is not given is left to it."""
    ended = await _tidegate("chat", "--target", target, "--system", "Be brief.", "--temperature", "0", "France?")

    assert (0, "Paris.\n") == (ended.code, ended.out)
    assert "2 tokens" in ended.notes
    request = service.requests[0]
    told = [(message.role, message.content) for message in request.chat.messages]
    assert [(CHAT_ROLE_SYSTEM, "Be brief."), (CHAT_ROLE_USER, "France?")] == told
    assert (
        request.model,
        request.sampling.temperature,
        request.sampling.HasField("temperature"),
    ) == ("fake", 0.0, True)
    assert not request.sampling.HasField("max_output_tokens")


async def test_chat_reads_a_piped_question(service: FakeInference, target: str) -> None:
    """Without an argument and without a terminal, stdin is the question."""
    ended = await _tidegate("chat", "--target", target, stdin="France?\n")

    assert (0, "Paris.\n") == (ended.code, ended.out)
    assert "France?\n" == service.requests[0].chat.messages[0].content


async def test_chat_json_prints_one_object_per_event(target: str) -> None:
    """Started, deltas, finished, and the statistics."""
    ended = await _tidegate("chat", "--target", target, "--json", "France?")

    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert ["started", "delta", "delta", "finished", "stats"] == [next(iter(line)) for line in lines]
    assert (0, "") == (ended.code, ended.notes)


async def test_a_refusal_is_explained_field_by_field(service: FakeInference, target: str) -> None:
    """Every violation stands on its own line, and the exit code says that asking again is no use."""
    service.scripts = [
        [
            RpcError(
                code=grpc.StatusCode.INVALID_ARGUMENT,
                reason="INVALID_REQUEST",
                domain=INFERENCE_DOMAIN,
                message="invalid request",
                violations=[Violation(field="sampling.max_output_tokens", description="at most 2048")],
            )
        ]
    ]

    ended = await _tidegate("chat", "--target", target, "France?")

    assert 3 == ended.code
    assert "sampling.max_output_tokens: at most 2048" in ended.notes


async def test_an_error_in_json_is_the_last_line(service: FakeInference, target: str) -> None:
    """With reason, metadata, violations and wait."""
    service.scripts = [[refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "KV_EXHAUSTED", retry_after_s=600)]]

    ended = await _tidegate("chat", "--target", target, "--timeout", "60", "--json", "France?")

    assert 4 == ended.code
    assert (
        (error := json.loads(ended.out.splitlines()[-1])["error"])["reason"],
        error["retry_after_s"],
    ) == ("KV_EXHAUSTED", 600.0)


async def test_nobody_there_says_what_to_do() -> None:
    """A newcomer's first mistake is to forget the server."""
    ended = await _tidegate("chat", "--target", "127.0.0.1:1", "France?")

    assert 5 == ended.code
    assert "tidegate serve" in ended.notes


async def test_ctrl_c_cancels_the_answer_on_the_server(service: FakeInference, target: str) -> None:
    """The command exits as interrupted, after the call is cancelled."""
    service.scripts = [[*answer("Pa", "ris")[:2], HANG]]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidegate.client", "chat", "--target", target, "France?"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert b"Pa" == await process.stdout.read(2)
        process.send_signal(signal.SIGINT)
        await service.cancelled.wait()
        assert 130 == await process.wait()


class _Terminal:
    """The command at a pseudo-terminal."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, descriptor: int) -> None:
        self.process = process
        self._reader = reader
        self._descriptor = descriptor
        self._seen = ""

    @classmethod
    @asynccontextmanager
    async def start(cls, *arguments: str) -> AsyncIterator[_Terminal]:
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tidegate.client", *arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
        )
        try:
            yield cls(process, reader, ours)
        finally:
            transport.close()

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    async def until(self, text: str) -> None:
        """Read until ``text`` has appeared behind what was awaited before."""
        while text not in self._seen:
            self._seen += (await self._reader.read(1024)).decode()
        self._seen = self._seen.partition(text)[2]


async def test_a_conversation_keeps_its_history_and_survives_ctrl_c(service: FakeInference, target: str) -> None:
    """Ctrl-C stops the answer and keeps what came of it; Ctrl-D leaves."""
    service.scripts = [answer("Paris", "."), [*answer("About", "two")[:2], HANG], answer("Bye")]
    async with asyncio.timeout(PATIENCE_S), _Terminal.start("chat", "--target", target) as terminal:
        await terminal.until("Ctrl-D leaves")
        terminal.type("France?\n")
        await terminal.until("Paris.")
        await terminal.until("> ")
        terminal.type("How many people?\n")
        await terminal.until("About")
        terminal.process.send_signal(signal.SIGINT)
        await terminal.until("(stopped)")
        await service.cancelled.wait()
        terminal.type("Thanks\n")
        await terminal.until("Bye")
        await terminal.until("> ")
        terminal.type("\x04")
        assert 0 == await terminal.process.wait()

    told = [(message.role, message.content) for message in service.requests[-1].chat.messages]
    expected = [
        (CHAT_ROLE_USER, "France?"),
        (CHAT_ROLE_ASSISTANT, "Paris."),
        (CHAT_ROLE_USER, "How many people?"),
        (CHAT_ROLE_ASSISTANT, "About"),
        (CHAT_ROLE_USER, "Thanks"),
    ]
    assert expected == told


async def test_models_and_tokenize_print_json(target: str) -> None:
    """For programs: one object per model, one for the tokens."""
    models = await _tidegate("models", "--target", target, "--json")
    tokens = await _tidegate("tokenize", "--target", target, "--json", "hi")

    assert "fake" == json.loads(models.out)["name"]
    assert [104, 105] == json.loads(tokens.out)["token_ids"]


async def test_models_prints_a_table(target: str) -> None:
    """For people: names and limits."""
    ended = await _tidegate("models", "--target", target)

    assert "fake" in ended.out
    assert "2048" in ended.out


async def test_doctor_goes_through_to_a_token(target: str) -> None:
    """Every line says ok."""
    ended = await _tidegate("doctor", "--target", target)

    assert 0 == ended.code
    assert ["ok"] * 4 == [line.split()[0] for line in ended.out.splitlines()]


async def test_doctor_stops_at_the_first_failure() -> None:
    """With a gateway that has no worker, that is the finding; its consequences are not listed."""
    async with serve(FakeInference(), is_serving=False) as target:
        ended = await _tidegate("doctor", "--target", target)

    marks = [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert (5, ["ok", "FAILED"]) == (ended.code, marks)
    assert "NOT_SERVING" in ended.out


async def test_a_wrong_command_line_exits_2() -> None:
    """The convention of shells."""
    assert 2 == (await _tidegate("chat", "--temperature", "3", "hi")).code


async def test_a_question_that_is_no_utf8_is_a_wrong_command_line() -> None:
    """From stdin."""
    ended = await _tidegate("chat", stdin="a\udcff")
    assert 2 == ended.code, ended.notes
    assert "not UTF-8" in ended.notes


async def test_what_cannot_be_written_is_told(target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A full disk; a home that is a file."""
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - a device
        ended = await _tidegate("chat", "--target", target, "hi", out=full)
    assert (1, "[Errno 28] No space left on device") == (ended.code, ended.notes.strip())
    (home := tmp_path / "home").touch()
    monkeypatch.setenv("TIDEGATE_HOME", str(home))
    ended = await _tidegate("demo", "--engine", "sim")
    assert 1 == ended.code
    assert f"'{home}" in ended.notes
    assert "Traceback" not in ended.notes


async def test_figures_of_nothing_are_null(service: FakeInference, target: str) -> None:
    """All requests of a burst were refused; JSON has no NaN."""
    service.scripts = [[refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "WAIT_TOO_LONG", retry_after_s=1)]]
    ended = await _tidegate("bench", "--target", target, "--concurrency", "2", "--json")
    assert 1 == ended.code
    assert "NaN" not in ended.out
    assert ({"WAIT_TOO_LONG": 2}, None) == ((figures := json.loads(ended.out))["failed"], figures["ttft_p50_ms"])


async def test_health_of_the_other_service_is_told_as_that(target: str) -> None:
    """The health service itself says NOT_FOUND, and no word more."""
    ended = await _tidegate("health", "--worker", "--target", target)
    assert 3 == ended.code
    assert f"{target} has no tidegate.worker.v1.WorkerService: it is a gateway, perhaps" in ended.notes


async def test_health_is_for_health_checks(target: str) -> None:
    """The exit code tells, and the word."""
    ended = await _tidegate("health", "--target", target)
    assert (0, "SERVING") == (ended.code, ended.out.strip())

    async with serve(FakeInference(), is_serving=False) as idle:
        ended = await _tidegate("health", "--target", idle)
    assert (5, "NOT_SERVING") == (ended.code, ended.out.strip())
