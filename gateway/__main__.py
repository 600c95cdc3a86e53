"""``python -m gateway``: serve until SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import uvloop

from gateway.app import Gateway
from gateway.config import ConfigError, GatewaySettings, read_command
from tidegate.telemetry.logs import set_up_logs
from tidegate.telemetry.setup import setup


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 after a shutdown, 1 when the address cannot be had, 2 for unusable settings."""
    try:
        command = read_command(arguments)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if command.print_config:
        sys.stdout.write(command.settings.to_toml())
        return 0
    set_up_logs(command.settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(command.settings))


async def _serve(settings: GatewaySettings) -> int:
    telemetry = setup("tidegate-gateway", endpoint=settings.otlp_endpoint)
    try:
        return await Gateway(settings, telemetry).run()
    finally:
        await asyncio.to_thread(telemetry.shutdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
