"""TLS contexts with ALPN for HTTP/2 (RFC 9113, section 9.2). gRPC knows no other way to agree on it."""

from __future__ import annotations

import ssl
from pathlib import Path

from tidegate.http2.transport import ALPN


def server_context(*, certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """For a listener; with ``client_ca``, clients have to show a certificate signed by it (mutual TLS)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return _with_alpn(context)


def client_context(
    *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """For a channel: trust ``ca``, or the system's authorities without one; show ``certificate`` if asked."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return _with_alpn(context)


def _with_alpn(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    return context
