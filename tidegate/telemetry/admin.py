"""The admin port: read-only pages over HTTP for operators and Prometheus, from threads of their own.

It is for a private network: nothing is changed through it, but it names workers and tenants.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from socket import AF_INET6, SHUT_RDWR, AddressFamily, socket
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Event, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_LOGGER = logging.getLogger(__name__)

# A scraper, a browser or two, `tidegate top`; more at one time are made to wait.
_MAX_THREADS = 8
# A peer that neither asks nor reads is let go, and while others wait for a thread one that takes longer in all.
_TIMEOUT_S = 10.0
_POLL_S = 0.2

_HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"),
    ("X-Content-Type-Options", "nosniff"),
]

StartResponse = Callable[[str, list[tuple[str, str]]], object]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Something to read. ``content`` is called in a thread for each request."""

    content_type: str
    content: Callable[[], bytes]


class AdminServer:
    """Serves ``/metrics`` and ``pages`` until closed."""

    def __init__(self, listen: str, registry: CollectorRegistry, pages: Mapping[str, Page] | None = None) -> None:
        """Begin to serve on ``listen``, host:port; port 0 takes a free one. Raises ``OSError``."""
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        kind = _ServerV6 if ":" in host else _Server
        app = _app(make_wsgi_app(registry), pages or {})
        self._server = make_server(host, int(port), app, server_class=kind, handler_class=_Handler)
        self.address = f"{host}:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="admin", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Blocks for half a second at most."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _app(metrics: WsgiApp, pages: Mapping[str, Page]) -> WsgiApp:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return [b""]
        page = pages.get(path)
        if page is None:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"There is {', '.join(('/metrics', *pages))}.\n".encode()]
        content = page.content()
        start_response("200 OK", [("Content-Type", page.content_type), *_HEADERS])
        return [content]

    return app


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        _LOGGER.debug(format, *args)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._threads_left = BoundedSemaphore(_MAX_THREADS)
        self._since: dict[socket, float] = {}  # peers that have a thread
        self._is_closing = Event()
        super().__init__(*args, **kwargs)

    def server_bind(self) -> None:
        # As HTTPServer does it, without asking a resolver, which may be slow, for a name that nobody needs.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def shutdown(self) -> None:
        self._is_closing.set()
        super().shutdown()

    def process_request(self, request: Any, client_address: Any) -> None:
        while not self._threads_left.acquire(timeout=_POLL_S):
            if self._is_closing.is_set():
                self.shutdown_request(request)
                return
            self._make_room()
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def _make_room(self) -> None:
        """Who says a byte now and then runs into no timeout, and may not keep others out for that."""
        now = time.monotonic()
        for request, since in tuple(self._since.items()):
            if now - since > _TIMEOUT_S:
                with suppress(OSError):  # it has ended by itself
                    request.shutdown(SHUT_RDWR)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._since[request]
            self._threads_left.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request
        _LOGGER.debug("a request from %s failed", client_address)


class _ServerV6(_Server):
    address_family: AddressFamily = AF_INET6
