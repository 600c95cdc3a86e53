"""``python -m gateway``: serve until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gateway.config import GatewaySettings
from gateway.process import serve
from gateway.processes import Processes
from tidegate.settings import ConfigError, read_settings
from tidegate.telemetry.logs import set_up_logs


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 after a shutdown, 1 when the address cannot be had, 2 for unusable settings."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Serve models over gRPC by their workers.")
    try:
        settings, command = read_settings(GatewaySettings, parser, arguments)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if command.print_config:
        sys.stdout.write(settings.to_toml())
        return 0
    if settings.processes > 1:
        set_up_logs(settings.log_format)
        return Processes(settings, serve).run()
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
