"""Several gateways behind one port: a parent that starts them, replaces one that is lost, and ends with them.

The kernel spreads connections over the processes (SO_REUSEPORT), each of which is a gateway of its own, as replicas on
several machines are: nothing is shared but the settings, whose limits are divided among them. A client that holds one
connection is served by one of them.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from gateway.config import GatewaySettings

_LOGGER = logging.getLogger(__name__)

# A process that ends sooner has not been able to start, and another one would not be either.
_START_S = 10.0

Serve = Callable[[GatewaySettings], int]


class Processes:
    """The processes of one port. ``serve`` is what each of them does; it has to be importable."""

    def __init__(self, settings: GatewaySettings, serve: Serve, *, start_s: float = _START_S) -> None:
        """A process that ends in less than ``start_s`` seconds is not replaced: all end with it."""
        self._start_s = start_s
        self._running: dict[int, BaseProcess] = {}
        self._settings = settings
        self._serve = serve
        self._context = multiprocessing.get_context("spawn")  # a fork would share what libraries have begun
        self._is_stopping = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until a process cannot start; the exit code."""
        try:
            held = _reserve(self._settings.listen)
        except OSError as error:
            _LOGGER.error("cannot listen on %s: %s", self._settings.listen, error.strerror)  # noqa: TRY400
            return 1
        with held:
            host, _, _ = self._settings.listen.rpartition(":")
            listen = f"{host}:{held.getsockname()[1]}"
            return asyncio.run(self._watch_all(listen))

    async def _watch_all(self, listen: str) -> int:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop)
        count = self._settings.processes
        try:
            codes = await asyncio.gather(*(self._watch(number, listen) for number in range(count)))
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)
        return max(codes)

    async def _watch(self, number: int, listen: str) -> int:
        """Keep one process running; its last exit code."""
        while True:
            settings = share_of(self._settings, number, listen=listen)
            process = self._context.Process(target=_child, args=(settings, self._serve), name=f"gateway {number}")
            process.start()
            started_at = time.monotonic()
            self._running[number] = process
            await _ended(process)
            code = process.exitcode or 0
            del self._running[number]
            if self._is_stopping:  # our signal may have come before it could have been handled
                return 0 if code == -signal.SIGTERM else abs(code)
            if time.monotonic() - started_at < self._start_s:
                _LOGGER.error("process %d ended with %d before it was of use; ending all", number, code)
                self._stop()
                return abs(code) or 1
            _LOGGER.error("process %d ended with %d; starting another one", number, code)

    def _stop(self) -> None:
        """Pass the signal on; a second one makes them hurry, as it does with a single process."""
        self._is_stopping = True
        for process in self._running.values():
            process.terminate()


def share_of(settings: GatewaySettings, number: int, *, listen: str) -> GatewaySettings:
    """The settings of one process: ``listen`` is common, and what is limited is divided."""
    count = settings.processes
    host, _, port = settings.admin_listen.rpartition(":")
    changes: dict[str, object] = {
        "listen": listen,
        "processes": 1,
        "reuse_port": True,
        "max_in_flight": -(-settings.max_in_flight // count),
        "queue_bytes": -(-settings.queue_bytes // count),
        "quota_gateways": settings.quota_gateways * count,
    }
    if number and settings.admin_listen:
        # One after the other where a port was named. The default's neighbours may be others' defaults.
        is_named = "admin_listen" in settings.model_fields_set and port != "0"
        changes["admin_listen"] = f"{host}:{int(port) + number if is_named else 0}"
    return settings.model_copy(update=changes)


def _reserve(listen: str) -> socket.socket:
    """A socket that holds the port for the processes, which alone listen on it. Raises ``OSError``."""
    host, _, port = listen.rpartition(":")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held


async def _ended(process: BaseProcess) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


def _child(settings: GatewaySettings, serve: Serve) -> None:
    os.setsid()  # Ctrl-C at the terminal is for the parent, which passes it on
    raise SystemExit(serve(settings))
