"""Where the settings of a service come from: flag > environment > TOML file > default.

Unknown keys are errors in all three. A service has a class of ``ServiceSettings`` with an ``env_prefix``.
"""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

_LAST_PORT = 65535


class ConfigError(Exception):
    """The settings are not usable. One line per fault."""


def check_address(address: str) -> str:
    """``address``, if it is host:port. Raises ``ValueError``."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(f"{address!r} is not host:port")
    if int(port) > _LAST_PORT:  # some take such a one modulo 65536
        raise ValueError(f"{address!r}: a port is at most {_LAST_PORT}")
    try:
        host.encode("idna")
    except UnicodeError as error:  # which no resolver is asked for, and is no OSError
        raise ValueError(f"{address!r}: no host can have that name") from error
    return address


Address = Annotated[str, AfterValidator(check_address)]
OptionalAddress = Annotated[str, AfterValidator(lambda address: check_address(address) if address else address)]
"""Empty for none."""
Keepalive = Annotated[float, Field(ge=1, le=86_400)]
"""Seconds. gRPC takes them as milliseconds, in an integer of 32 bits."""


class ServiceSettings(BaseSettings):
    """What a service is told. The docstring of a setting is its help, and its line in docs/configuration.md."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before arguments, which are what the file says. Flags come before both."""
        return env_settings, init_settings

    def to_toml(self) -> str:
        """The settings as a file that ``--config`` reads. TOML has no null: what is None is left out."""
        values = self.model_dump(mode="json", exclude_none=True)
        tables = {name: values.pop(name) for name, value in tuple(values.items()) if isinstance(value, dict)}
        sections = (
            f'\n[{name}."{key}"]\n{_lines(entry)}' for name, table in tables.items() for key, entry in table.items()
        )
        return _lines(values) + "".join(sections)


_Settings = TypeVar("_Settings", bound=ServiceSettings)


def read_settings(
    kind: type[_Settings], parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[_Settings, argparse.Namespace]:
    """The settings by command line, environment and file, and the command line itself with ``parser``'s own switches.

    Raises ``ConfigError``; exits on ``--help`` and on flags that do not exist.
    """
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of settings: max_in_flight for --max-in-flight"
    )
    parser.add_argument("--print-config", action="store_true", help="print the settings in effect and exit")
    flags = CliSettingsSource[argparse.ArgumentParser](kind, root_parser=parser)
    parsed = parser.parse_args(arguments)
    unknown = sorted(_unknown_variables(kind))
    if unknown:
        raise ConfigError("\n".join(f"{name}: no such setting" for name in unknown))
    try:
        from_file = _from_file(kind, parsed.config) if parsed.config else {}
        return CliApp.run(kind, cli_args=parsed, cli_settings_source=flags, **from_file), parsed
    except OSError as error:
        raise ConfigError(f"{parsed.config}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{parsed.config}: {error}") from error
    except SettingsError as error:  # of a table, which names it, but not its form
        raise ConfigError(f"{error}: a table is given as a JSON object") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ConfigError("\n".join(faults)) from error


def _from_file(kind: type[ServiceSettings], path: Path) -> dict[str, Any]:
    """What a TOML file says. Its keys become arguments of pydantic, which has some of its own: none of them gets by."""
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = sorted(values.keys() - kind.model_fields.keys())
    if unknown:
        raise ConfigError("\n".join(f"{path}: {name}: no such setting" for name in unknown))
    return values


def _unknown_variables(kind: type[ServiceSettings]) -> set[str]:
    prefix = kind.model_config["env_prefix"]
    known = {f"{prefix}{name}".upper() for name in kind.model_fields}
    return {name for name in os.environ if name.upper().startswith(prefix)} - known


def _lines(values: Mapping[str, object]) -> str:
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())
