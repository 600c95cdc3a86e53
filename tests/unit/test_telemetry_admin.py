from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from http.client import HTTPConnection

import pytest

from tests.fakes.patience import PATIENCE_S
from tidegate.telemetry.admin import AdminServer, Page
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.port import admin_port

_PAGES = {"/hello": Page(content_type="text/plain", content=lambda: b"hello")}


@pytest.fixture
def server() -> Iterator[AdminServer]:
    """On a free port of localhost."""
    server = AdminServer("127.0.0.1:0", Metrics().registry, _PAGES)
    yield server
    server.close()


def ask(address: str, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and text."""
    connection = HTTPConnection(address, timeout=PATIENCE_S)
    connection.request(method, path)
    response = connection.getresponse()
    answer = response.status, response.getheader("Content-Type", ""), response.read().decode()
    connection.close()
    return answer


def test_metrics_are_served_in_prometheus_form(server: AdminServer) -> None:
    """The process's own among them."""
    status, content_type, text = ask(server.address, "/metrics")
    assert (200, True) == (status, content_type.startswith("text/plain"))
    assert "process_cpu_seconds_total" in text


def test_pages_are_served_and_others_are_named(server: AdminServer) -> None:
    """A wrong path is told the right ones."""
    assert (200, "text/plain", "hello") == ask(server.address, "/hello")
    status, _, text = ask(server.address, "/nothing")
    assert (404, "There is /metrics, /hello.\n") == (status, text)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(server: AdminServer, method: str) -> None:
    """The port is read-only."""
    assert 405 == ask(server.address, "/hello", method)[0]


async def test_a_taken_default_is_logged(
    server: AdminServer, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """A second worker on a machine serves all the same."""
    caplog.set_level(logging.INFO)
    taken = await stack.enter_async_context(admin_port(server.address, Metrics(), {}, is_default=True))
    assert "" == taken
    assert f"{server.address} is taken" in caplog.text


async def test_a_taken_address_that_was_asked_for_is_an_error(server: AdminServer, stack: AsyncExitStack) -> None:
    """Who names an address means it."""
    with pytest.raises(OSError, match="in use"):
        await stack.enter_async_context(admin_port(server.address, Metrics(), {}, is_default=False))


async def test_an_empty_address_serves_nothing(stack: AsyncExitStack) -> None:
    """The way to have no admin port."""
    assert "" == await stack.enter_async_context(admin_port("", Metrics(), {}, is_default=False))
