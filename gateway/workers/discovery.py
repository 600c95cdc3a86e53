"""Where workers are: addresses as they stand in the settings, names that DNS knows, or a file that somebody keeps.

Names and files are asked again and again. What cannot be asked, or answers with nonsense, changes nothing: a resolver
that is down must not cost a fleet.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from tidegate.settings import check_address

_LOGGER = logging.getLogger(__name__)

_DNS_INTERVAL_S = 3.0
_FILE_INTERVAL_S = 1.0

# A list of texts, or one that is empty. An address of IPv6 begins with a bracket, too.
_JSON_LIST = re.compile(r"\s*\[\s*[\"\]]")


class DiscoveryError(Exception):
    """A source cannot say now where its workers are. The message says why."""


class Source(Protocol):
    """One entry of the setting ``workers``."""

    name: str

    @property
    def interval_s(self) -> float | None:
        """Seconds between questions; None: the answer is always the same."""

    async def addresses(self) -> frozenset[str]:
        """All of its workers, as host:port. Raises ``DiscoveryError``."""


class Fleetlike(Protocol):
    """What follows the addresses."""

    def appear(self, address: str) -> None:
        """A worker is to be connected to."""

    def disappear(self, address: str) -> None:
        """A worker gets no more jobs, and is left once those that run there have ended."""


class StaticSource:
    """``host:port``."""

    interval_s = None

    def __init__(self, address: str) -> None:
        self.name = address

    async def addresses(self) -> frozenset[str]:
        """The address."""
        return frozenset({self.name})


class DnsSource:
    """``dns:NAME:PORT``: all addresses, A and AAAA, that a name has, such as a headless service of Kubernetes."""

    interval_s = _DNS_INTERVAL_S

    def __init__(self, host: str, port: int) -> None:
        self.name = f"dns:{host}:{port}"
        self._host = host
        self._port = port

    async def addresses(self) -> frozenset[str]:
        """As the resolver of this machine has them."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter of a name that none can be, like one with two dots
            raise DiscoveryError(getattr(error, "strerror", None) or str(error)) from error
        hosts = {str(address[0]) for *_, address in found}
        return frozenset(f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}" for host in hosts)


class FileSource:
    """``file:PATH``: an address on each line, or a JSON list of them."""

    interval_s = _FILE_INTERVAL_S

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path}"
        self._path = path

    async def addresses(self) -> frozenset[str]:
        """As the file has them now; lines that begin with # do not count."""
        try:
            text = await asyncio.to_thread(self._path.read_text, encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DiscoveryError(str(error)) from error
        return frozenset(_parsed(text))


class Discovery:
    """Keeps a fleet's workers those that its sources name."""

    def __init__(self, sources: Collection[Source], fleet: Fleetlike) -> None:
        self._sources = sources
        self._fleet = fleet
        self._named: dict[str, frozenset[str]] = {}  # by source

    @property
    def addresses(self) -> frozenset[str]:
        """All workers that are to be connected to."""
        return frozenset().union(*self._named.values())

    async def run(self) -> None:
        """Until cancelled, unless all sources are fixed."""
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources:
                tasks.create_task(self._follow(source), name=f"discovery {source.name}")

    async def _follow(self, source: Source) -> None:
        complaint = ""
        while True:
            try:
                self._take(source, await source.addresses())
                complaint = ""
            except DiscoveryError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    _LOGGER.warning("%s does not tell its workers, the last ones stay: %s", source.name, complaint)
            if source.interval_s is None:
                return
            await asyncio.sleep(source.interval_s)

    def _take(self, source: Source, addresses: frozenset[str]) -> None:
        before = self.addresses
        self._named[source.name] = addresses
        now = self.addresses
        for address in sorted(now - before):
            self._fleet.appear(address)
        for address in sorted(before - now):
            self._fleet.disappear(address)


def parse_source(entry: str) -> Source:
    """The source that an entry of the setting names. Raises ``ValueError``."""
    if entry.startswith("file:"):
        return FileSource(Path(entry.removeprefix("file:")))
    if entry.startswith("dns:"):
        host, _, port = check_address(entry.removeprefix("dns:")).rpartition(":")
        return DnsSource(host, int(port))
    return StaticSource(check_address(entry))


def _parsed(text: str) -> list[str]:
    try:
        if _JSON_LIST.match(text):
            entries = [str(entry) for entry in json.loads(text)]
        else:
            entries = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        return [check_address(entry) for entry in entries]
    except (ValueError, RecursionError) as error:
        raise DiscoveryError(str(error)) from error
