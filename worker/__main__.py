"""``python -m worker``: serve one model until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

import uvloop

from tidegate.garbage import leave_out_what_is_there
from tidegate.settings import ConfigError, read_settings
from tidegate.telemetry.environment import UnusableExporterError
from tidegate.telemetry.logs import set_up_logs
from tidegate.telemetry.setup import setup
from worker.abandonable import is_work_left
from worker.app import Worker
from worker.config import WorkerSettings
from worker.restart_policy import RestartLimits, RestartPolicy
from worker.supervisor import Supervisor, supervised_command

_LOGGER = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 after a shutdown, 1 when the engine failed, 2 for settings that cannot be used.

    A supervisor returns 3 when it gave up.
    """
    parser = argparse.ArgumentParser(prog="python -m worker", description="Serve one model over gRPC.")
    parser.add_argument("--supervise", action="store_true", help="start the worker again whenever its engine has died")
    try:
        settings, command = read_settings(WorkerSettings, parser, arguments)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if command.print_config:
        sys.stdout.write(settings.to_toml())
        return 0
    if settings.engine == "vllm" and settings.model_dir is None:
        sys.stderr.write("model_dir: the engine vllm needs one\n")
        return 2
    set_up_logs(settings.log_format)
    if command.supervise:
        return Supervisor(supervised_command(arguments), RestartPolicy(RestartLimits())).run()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        exit_code = runner.run(_serve(settings))
    if is_work_left():  # the model was still being loaded
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code


async def _serve(settings: WorkerSettings) -> int:
    try:
        telemetry = setup("tidegate-worker", endpoint=settings.otlp_endpoint, begins_traces=False)
    except UnusableExporterError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400
        return 2
    try:
        return await Worker(settings, telemetry=telemetry, on_loaded=leave_out_what_is_there).run()
    finally:
        await telemetry.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
