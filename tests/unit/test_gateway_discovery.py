from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.workers.discovery import (
    Discovery,
    DiscoveryError,
    DnsSource,
    FileSource,
    StaticSource,
    parse_source,
)


class Followed:
    """A fleet that only remembers."""

    def __init__(self) -> None:
        self.workers: set[str] = set()

    def appear(self, address: str) -> None:
        assert address not in self.workers
        self.workers.add(address)

    def disappear(self, address: str) -> None:
        self.workers.remove(address)


class Scripted:
    """A source that answers what stands here, an answer a question, and the last one for ever."""

    interval_s = 0.0

    def __init__(self, *answers: set[str] | DiscoveryError) -> None:
        self.name = f"scripted {id(self)}"
        self.answers = list(answers)

    async def addresses(self) -> frozenset[str]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, DiscoveryError):
            raise answer
        return frozenset(answer)


async def followed(*sources: Scripted) -> set[str]:
    """The workers once all sources have given their last answer."""
    fleet = Followed()
    running = asyncio.create_task(Discovery(sources, fleet).run())
    while any(len(source.answers) > 1 for source in sources):  # noqa: ASYNC110 - they have no event
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    running.cancel()
    return fleet.workers


async def test_workers_come_and_go_as_a_source_names_them() -> None:
    """Those that stay are left alone."""
    assert {"b:1", "c:1"} == await followed(Scripted({"a:1", "b:1"}, {"b:1", "c:1"}))


async def test_a_source_that_cannot_answer_changes_nothing() -> None:
    """A resolver that is down must not cost a fleet."""
    assert {"a:1"} == await followed(Scripted({"a:1"}, DiscoveryError("down")))


async def test_a_worker_named_twice_stays_until_nobody_names_it() -> None:
    """Sources may overlap."""
    assert {"a:1"} == await followed(Scripted({"a:1"}), Scripted({"a:1", "b:1"}, set()))


async def test_fixed_addresses_are_asked_for_once() -> None:
    """And then there is nothing to do."""
    fleet = Followed()
    await Discovery([StaticSource("a:1"), StaticSource("b:2")], fleet).run()
    assert {"a:1", "b:2"} == fleet.workers


async def test_a_name_is_resolved_to_all_its_addresses() -> None:
    """By the resolver of the machine."""
    assert {"127.0.0.1:50061"} <= await DnsSource("localhost", 50061).addresses()
    with pytest.raises(DiscoveryError):
        await DnsSource("no-such-host.invalid", 1).addresses()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:1\n\n# not this one\n b:2 \n", {"a:1", "b:2"}),
        ('["a:1", "b:2"]', {"a:1", "b:2"}),
        ("", set()),
        ("[]", set()),
        ("[fd00::1]:1\n[fd00::2]:2\n", {"[fd00::1]:1", "[fd00::2]:2"}),
        ('[\n  "[fd00::1]:1"\n]', {"[fd00::1]:1"}),
    ],
)
async def test_a_file_has_addresses_on_lines_or_as_json(tmp_path: Path, text: str, expected: set[str]) -> None:
    """And may change at any time."""
    path = tmp_path / "workers"
    path.write_text(text)
    source = FileSource(path)
    assert expected == await source.addresses()
    path.write_text("c:3")
    assert {"c:3"} == await source.addresses()


@pytest.mark.parametrize(
    "content", [b"no port", b"[", b'["a:1"', b"[1]", b"\xff", b"a:65536", b'["a:1",' + b"[" * 99_999]
)
async def test_a_file_with_nonsense_is_not_believed(tmp_path: Path, content: bytes) -> None:
    """Half a file is what one finds while somebody writes it."""
    path = tmp_path / "workers"
    path.write_bytes(content)
    with pytest.raises(DiscoveryError):
        await FileSource(path).addresses()


@pytest.mark.parametrize("host", ["workers..svc", "x" * 64])
async def test_a_name_that_none_can_be_is_a_source_that_cannot_answer(host: str) -> None:
    """What Python says of it is no error of a resolver, and would end all that the gateway does."""
    with pytest.raises(DiscoveryError, match="label"):
        await DnsSource(host, 1).addresses()


@pytest.mark.parametrize(
    ("entry", "kind"), [("host:1", StaticSource), ("dns:host:1", DnsSource), ("file:/etc/workers", FileSource)]
)
def test_an_entry_of_the_setting_names_its_source(entry: str, kind: type) -> None:
    """And keeps its name for the log."""
    source = parse_source(entry)
    assert (kind, entry) == (type(source), source.name)
