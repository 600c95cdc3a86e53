"""The process in which constraints are compiled: ``python -m worker.constraint_nursery TOKENIZER_DIR VOCABULARY_SIZE``.

It loads the compiler once, which takes seconds, and then forks a child for each task, in milliseconds. The child has
limits of processor time, time and memory, and the kernel ends it when it exceeds one of them. Frames go in by
standard input and out by standard output: four bytes of length, big-endian, and JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from worker.constraint_compiler import ConstraintCompiler, UnusableConstraintError
from worker.engine import Constraint, ConstraintKind

_READ_BYTES = 1 << 16
_TOO_LARGE = "takes too much memory to compile"
_ENDINGS: dict[int, tuple[str, bool]] = {
    # problem, and whether another try would end in the same way
    signal.SIGPROF: ("takes too much processor time to compile", True),
    signal.SIGALRM: ("takes too long to compile", False),  # here and now; the machine may be busy
}
# By an allocation that failed inside the compiler, as good as always.
_CRASHED = (_TOO_LARGE, True)


@dataclass(slots=True)
class _Child:
    task_id: int
    pid: int
    answer: bytearray = field(default_factory=bytearray)


def serve(compiler: ConstraintCompiler, requests: int, answers: int) -> None:
    """Work on frames from the file descriptor ``requests`` until it ends, and write to ``answers``."""
    buffer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                child: _Child | None = key.data
                data = os.read(key.fd, _READ_BYTES)
                if child is None:
                    if not data:
                        return  # the worker has ended
                    buffer += data
                    for task in _frames(buffer):
                        pid, answer = _fork(compiler, task)
                        selector.register(answer, selectors.EVENT_READ, _Child(task["id"], pid))
                elif data:
                    child.answer += data
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _write_all(answers, _frame({"id": child.task_id, **_ending(child)}))


def _frames(buffer: bytearray) -> Iterator[dict[str, Any]]:
    while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[:4])):  # noqa: PLR2004 - see above
        yield json.loads(bytes(buffer[4:end]))
        del buffer[:end]


def _frame(message: dict[str, Any]) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(4) + data


def _fork(compiler: ConstraintCompiler, task: dict[str, Any]) -> tuple[int, int]:
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        _work(compiler, task, writable)
    os.close(writable)
    return pid, readable


def _work(compiler: ConstraintCompiler, task: dict[str, Any], answer: int) -> NoReturn:
    """The life of a child. It never returns into the loop of its parent."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a caller must not fill the log with the compiler's warnings
        _limit(task)
        constraint = Constraint(kind=ConstraintKind(task["kind"]), text=task["text"], choices=tuple(task["choices"]))
        problem = verdict = None
        try:
            if task["output"] is None:
                compiler.check(constraint)
            else:
                verdict = compiler.judge(constraint, task["output"])
        except UnusableConstraintError as error:
            problem = str(error)
        except MemoryError:
            problem = _TOO_LARGE
        _write_all(answer, json.dumps({"problem": problem, "verdict": verdict, "is_final": True}).encode())
        status = 0
    finally:
        os._exit(status)


def _limit(task: dict[str, Any]) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    address_space = pages * resource.getpagesize() + task["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What these signals do by default is what is wanted: end the process, even inside the compiler.
    signal.setitimer(signal.ITIMER_PROF, task["processor_s"])
    signal.setitimer(signal.ITIMER_REAL, task["wall_s"])


def _ending(child: _Child) -> dict[str, Any]:
    _, status = os.waitpid(child.pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        answer: dict[str, Any] = json.loads(bytes(child.answer))
        return answer
    problem, is_final = _ENDINGS.get(os.WTERMSIG(status), _CRASHED) if os.WIFSIGNALED(status) else _CRASHED
    return {"problem": problem, "verdict": None, "is_final": is_final}


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> None:
    """Load the compiler, say so with an empty frame, and serve."""
    tokenizer_dir, vocabulary_size = sys.argv[1:]
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not get among the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle; it closes our standard input
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiler = ConstraintCompiler(Path(tokenizer_dir), int(vocabulary_size))
        _write_all(answers, _frame({}))
        with contextlib.suppress(BrokenPipeError):
            serve(compiler, 0, answers)


if __name__ == "__main__":
    main()
