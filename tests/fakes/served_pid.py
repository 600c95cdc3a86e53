"""Stands for a gateway among several processes: tells a listener its pid, and runs until SIGTERM."""

from __future__ import annotations

import os
import signal
import socket

from gateway.config import GatewaySettings


def serve(settings: GatewaySettings) -> int:
    """``settings.tokenizer_dir`` names the listener's socket; returns 0 on SIGTERM, 7 when nobody listens."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    with socket.socket(socket.AF_UNIX) as teller:
        try:
            teller.connect(str(settings.tokenizer_dir))
        except OSError:
            return 7
        teller.sendall(str(os.getpid()).encode())
    signal.sigwait((signal.SIGTERM,))
    return 0
