"""``make fuzz``: atheris mutates frame sequences, guided by the lines of tidegate.http2 that they reach.

``TIDEGATE_FUZZ_RUNS`` bounds the sequences, ``TIDEGATE_FUZZ_SECONDS`` the time, and ``TIDEGATE_FUZZ_RSS_MB`` memory:
growth is how a leak shows. A crash, a hang of five seconds or growth ends the run with an exit code, and leaves its
input in ``build/fuzz``.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tidegate.http2", "hpack"]):
    from tests.fakes.http2_mutations import attack_client, attack_server, client_sequence, mutated, server_sequence
    from tests.fakes.http2_peer import ServerUnderTest

_BUILD = Path("build/fuzz")
_CLIENT, _SERVER = b"c", b"s"


def _run(data: bytes) -> None:
    """One sequence; its first byte says who sends it."""
    role, wire = data[:1], data[1:]
    rng = random.Random(len(wire))
    if role == _SERVER:
        attack_client(rng, wire)
    else:
        attack_server(rng, ServerUnderTest(handshake=False), wire)


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time whole frames are moved, cut and damaged; otherwise libFuzzer has its way with the bytes."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        return bytes(atheris.Mutate(data, max_size))
    return (data[:1] + mutated(rng, _frames(data[1:])))[:max_size]


def _frames(wire: bytes) -> list[bytes]:
    """Cut where frames would begin, as far as the lengths make sense; a client's preface is a piece of its own."""
    pieces = [wire[:24]] if wire.startswith(b"PRI") else []
    at = sum(map(len, pieces))
    while at < len(wire):
        end = at + 9 + int.from_bytes(wire[at : at + 3], "big")
        pieces.append(wire[at:end])
        at = end
    return pieces or [b""]


def main() -> None:
    """Fuzz within the bounds of the environment."""
    corpus = _BUILD / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "client").write_bytes(_CLIENT + b"".join(client_sequence(ServerUnderTest(handshake=False))))
    (corpus / "server").write_bytes(_SERVER + b"".join(server_sequence()))
    bounds = {
        "runs": os.environ.get("TIDEGATE_FUZZ_RUNS", "1000000"),
        "max_total_time": os.environ.get("TIDEGATE_FUZZ_SECONDS", "0"),
        "rss_limit_mb": os.environ.get("TIDEGATE_FUZZ_RSS_MB", "512"),
        "timeout": "5",
        "max_len": "16384",
        "artifact_prefix": f"{_BUILD}/",
        "print_final_stats": "1",
    }
    arguments = [f"-{name}={value}" for name, value in bounds.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], _run, custom_mutator=_mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
