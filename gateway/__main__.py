"""``python -m gateway``: serve until SIGTERM."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gateway.config import ConfigError, read_command
from gateway.process import serve
from gateway.processes import Processes
from tidegate.telemetry.logs import set_up_logs


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
    if command.settings.processes > 1:
        set_up_logs(command.settings.log_format)
        return Processes(command.settings, serve).run()
    return serve(command.settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
