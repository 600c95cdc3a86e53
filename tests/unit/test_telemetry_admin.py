from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from http.client import HTTPConnection

import pytest

from tests.fakes.patience import PATIENCE_S
from tidegate.telemetry import admin
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


def ask(address: str, path: str, method: str = "GET", *, timeout_s: float = PATIENCE_S) -> tuple[int, str, str]:
    """Status, content type and text."""
    connection = HTTPConnection(address, timeout=timeout_s)
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


@contextmanager
def crowding(server: AdminServer) -> Iterator[list[socket.socket]]:
    """Peers that take all threads and ask for nothing, and one more that waits for a thread."""
    host, _, port = server.address.rpartition(":")
    peers = [socket.create_connection((host, int(port))) for _ in range(admin._MAX_THREADS + 1)]
    while select.select([server._server], [], [], 0)[0]:  # not all have been accepted
        time.sleep(0.01)
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


def test_peers_that_ask_for_nothing_do_not_hold_up_the_end(server: AdminServer) -> None:
    """A gateway that has drained would wait for them, up to the end that Kubernetes makes."""
    with crowding(server):
        closing = threading.Thread(target=server.close, daemon=True)
        closing.start()
        closing.join(admin._TIMEOUT_S / 2)
        assert not closing.is_alive()


def test_peers_that_ask_without_end_make_room(server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no answer to a timeout: with eight such peers nobody could read metrics any more."""
    timeout_s = admin._TIMEOUT_S / 2
    with crowding(server) as peers:
        for peer in peers:
            peer.sendall(b"G")
        monkeypatch.setattr(admin, "_TIMEOUT_S", 0.0)  # those that stand have the real one
        assert 200 == ask(server.address, "/hello", timeout_s=timeout_s)[0]


def test_no_resolver_is_asked_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is down would hold up the whole process."""
    monkeypatch.setattr(socket, "getfqdn", None)
    AdminServer("127.0.0.1:0", Metrics().registry, _PAGES).close()


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
