"""One gateway process, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os

import uvloop

from gateway.app import Gateway
from gateway.config import GatewaySettings
from tidegate.garbage import leave_out_what_is_there
from tidegate.telemetry.environment import UnusableExporterError
from tidegate.telemetry.logs import set_up_logs
from tidegate.telemetry.setup import setup

_LOGGER = logging.getLogger(__name__)


def serve(settings: GatewaySettings) -> int:
    """Be one gateway until SIGTERM; returns the exit code."""
    set_up_logs(settings.log_format)
    # A text is encoded where it is needed: tokenizers would hand each to a thread of its own, and wait for that.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    leave_out_what_is_there()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: GatewaySettings) -> int:
    try:
        telemetry = setup("tidegate-gateway", endpoint=settings.otlp_endpoint)
    except UnusableExporterError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400
        return 2
    try:
        try:
            gateway = Gateway(settings, telemetry)
        except OSError as error:
            _LOGGER.error("cannot write decision_log %s: %s", settings.decision_log, error.strerror)  # noqa: TRY400
            return 1
        _end_with_parent(gateway)
        return await gateway.run()
    finally:
        await telemetry.end()


def _end_with_parent(gateway: Gateway) -> None:
    """The parent of several processes may be killed, and then nobody would pass a signal on."""
    loop, parent = asyncio.get_running_loop(), multiprocessing.parent_process()

    def stop(sentinel: int) -> None:
        loop.remove_reader(sentinel)
        gateway.stop()

    if parent is not None:
        loop.add_reader(parent.sentinel, stop, parent.sentinel)
