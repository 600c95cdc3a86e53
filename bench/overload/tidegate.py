"""Tidegate's own policies in virtual time: the waiting lines of one or more gateways before one worker's books."""

from __future__ import annotations

import random
from functools import partial

from bench.overload.score import Answer
from bench.overload.trace import Arrival
from bench.overload.virtual import Agenda, VirtualEngine
from bench.overload.virtual_gateway import HOP_S, VirtualGateway
from bench.overload.virtual_worker import VirtualWorker
from worker.sim_profile import SimProfile


class Tidegate:
    """``gateways`` that know of one another only what the worker tells them; a call goes to any of them."""

    def __init__(self, agenda: Agenda, engine: VirtualEngine, profile: SimProfile, *, gateways: int = 1) -> None:
        worker = VirtualWorker(agenda, engine, profile)
        self._gateways = [VirtualGateway(agenda, [worker], number) for number in range(gateways)]
        self._agenda = agenda
        self._rng = random.Random(0)

    def arrive(self, arrival: Arrival, answer: Answer) -> None:
        """A client's call; what is measured at the client is a hop later than what happens here."""
        gateway = self._rng.choice(self._gateways)
        self._agenda.at(self._agenda.now + HOP_S, partial(gateway.enter, arrival, answer))
