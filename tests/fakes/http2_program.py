"""A client of another language: a program that makes the calls it is told to, one JSON object a line."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from grpc import StatusCode

from tests.fakes.http2_callers import Outcome
from tests.fakes.patience import PATIENCE_S
from tidegate.http2.metadata import Metadata

_CODES = {code.value[0]: code for code in StatusCode}
_LINE_BYTES = 64 * 2**20  # an outcome holds all that was received


class ProgramCaller:
    """Start it with ``start``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = count(1)
        self._outcomes: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str], address: str, authority: Path | None) -> ProgramCaller:
        """``authority`` is the file with the certificate authority; None is without TLS."""
        arguments = [address, *([str(authority)] if authority else [])]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, *arguments, stdin=pipe, stdout=pipe, limit=_LINE_BYTES)
        if process.stdout is None or await process.stdout.readline() != b"ready\n":
            raise AssertionError(f"{command[0]} does not start")
        return cls(process)

    async def call(
        self,
        method: str,
        requests: Sequence[bytes] = (b"",),
        *,
        metadata: Metadata = (),
        timeout_s: float | None = PATIENCE_S,
        cancel_after: int | None = None,
        cancel_when: Awaitable[None] | None = None,
        pause_s: float = 0,
    ) -> Outcome:
        id_ = next(self._ids)
        future = self._outcomes[id_] = asyncio.get_running_loop().create_future()
        await self._tell(
            id=id_,
            method=method,
            requests=[_text(request) for request in requests],
            metadata=[[key, _text(value) if isinstance(value, bytes) else value] for key, value in metadata],
            timeout_s=timeout_s,
            cancel_after=cancel_after,
            pause_s=pause_s,
        )
        if cancel_when is not None:
            await cancel_when
            await self._tell(id=id_, cancel=True)
        said = await future
        return Outcome(
            code=_CODES[said["code"]],
            message=said["message"],
            received=[base64.b64decode(message) for message in said["received"]],
            initial=dict(map(_field, said["initial"])),
            trailing=dict(map(_field, said["trailing"])),
        )

    async def close(self) -> None:
        """The program ends with its stdin."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def _tell(self, **words: Any) -> None:
        if self._process.stdin is None:
            raise AssertionError("no pipe")
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        with suppress(ConnectionError):
            await self._process.stdin.drain()

    async def _read(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("no pipe")
        async for line in self._process.stdout:
            said = json.loads(line)
            self._outcomes.pop(said["id"]).set_result(said)
        for future in self._outcomes.values():
            future.set_exception(AssertionError(f"the client ended with {self._process.returncode}"))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _field(pair: Sequence[str]) -> tuple[str, str | bytes]:
    key, value = pair
    return key, base64.b64decode(value) if key.endswith("-bin") else value
