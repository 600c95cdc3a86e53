from __future__ import annotations

import os
import random
import time

from tests.fakes.http2_mutations import attack_client, attack_server, client_sequence, mutated, server_sequence
from tests.fakes.http2_peer import ServerUnderTest

# `make fuzz` goes on from here, with a fuzzer that sees which lines it has reached.
_MUTATIONS = int(os.environ.get("TIDEGATE_TEST_MUTATIONS", "20000"))
_SLOW_S = 5.0  # of processor time


def test_mutated_clients_never_break_the_server() -> None:
    """Whatever a client sends, the server answers with whole frames, ends, and forgets every stream."""
    rng = random.Random(9113)
    for _ in range(_MUTATIONS // 2):
        server = ServerUnderTest(handshake=False)
        sequence = client_sequence(server)
        began = time.process_time()
        attack_server(rng, server, mutated(rng, sequence))
        assert time.process_time() - began < _SLOW_S


def test_mutated_servers_never_break_the_client() -> None:
    """The same for what a client makes of a broken server; every call is told of its end exactly once."""
    rng = random.Random(7541)
    sequence = server_sequence()
    for _ in range(_MUTATIONS // 2):
        attack_client(rng, mutated(rng, sequence))
