"""Certificates for 127.0.0.1, in the form that each stack wants them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme

from tidegate.http2.tls import client_context, server_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Issued by an authority of our own; the files lie in ``folder``."""

    folder: Path
    server: ssl.SSLContext
    client: ssl.SSLContext
    credentials: grpc.ChannelCredentials

    @classmethod
    def issue(cls, folder: Path) -> Certificates:
        """Write ca.pem, server.pem and server.key."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
        issued.private_key_pem.write_to_path(folder / "server.key")
        return cls(
            folder=folder,
            server=server_context(certificate=folder / "server.pem", key=folder / "server.key"),
            client=client_context(ca=folder / "ca.pem"),
            credentials=grpc.ssl_channel_credentials(authority.cert_pem.bytes()),
        )
