"""The workers in rotation, and what this gateway has running on each.

Only ``WorkerConnection`` writes here. Requests see immutable snapshots, and leases that last as long as their streams.
All of this is soft state of one replica: any other replica comes to the same view from the workers' own reports.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from gateway.model import ServedModel
from gateway.policy.balancer import Candidate, pick
from gateway.policy.load import WorkerLoad
from gateway.policy.outcomes import Outcome
from gateway.policy.retry_budget import RetryBudget
from gateway.policy.unseen_blocks import UnseenBlocks
from gateway.workers.client import WorkerClient
from gateway.workers.errors import UnusableWorkerError

_LOGGER = logging.getLogger(__name__)


class Seat:
    """A worker that has proven itself, from its handshake until it is lost."""

    def __init__(self, client: WorkerClient, model: ServedModel, load: WorkerLoad) -> None:
        self.client = client
        self.model = model
        self.load = load
        self.unseen = UnseenBlocks()
        self.in_flight = 0
        self.is_doubtful = False
        self.has_refused = False  # for want of room, since its last report

    @property
    def worker_id(self) -> str:
        """The worker's address, which tells it from the others."""
        return self.client.target

    def receive(self, load: WorkerLoad) -> None:
        """Take in a load report; whatever was held against the worker was before it."""
        self.load = load
        self.unseen.receive_report()
        self.is_doubtful = False
        self.has_refused = False

    def has_room(self, tokens: int) -> bool:
        """Whether a job of so many tokens would find its blocks now, by the last report and by what was sent since."""
        candidate = self.as_candidate()
        return not self.has_refused and candidate.blocks_for(tokens) <= candidate.room_blocks

    def as_candidate(self) -> Candidate:
        """How the worker looks at this instant."""
        return Candidate(
            worker_id=self.worker_id,
            load=self.load,
            unseen_blocks=self.unseen.blocks,
            in_flight=self.in_flight,
            is_doubtful=self.is_doubtful,
        )


class Lease:
    """A job's place on a worker. Close it exactly once, when the job's stream has ended."""

    def __init__(self, seat: Seat, budget: RetryBudget, *, blocks: int, on_close: Callable[[], None]) -> None:
        self.worker_id = seat.worker_id
        self.client = seat.client
        self.load = seat.load
        self._seat = seat
        self._budget = budget
        self._on_close = on_close
        self._sent = seat.unseen.send(blocks)
        seat.in_flight += 1

    def close(self, outcome: Outcome) -> None:
        """The job's attempt has ended so."""
        self._seat.in_flight -= 1
        self._seat.unseen.end(self._sent)
        if outcome in (Outcome.FAILED, Outcome.REFUSED):
            self._seat.is_doubtful = True
        if outcome is Outcome.REFUSED:
            self._seat.has_refused = True
        if outcome is Outcome.FAILED:
            self._budget.fail()
        elif outcome is Outcome.SUCCESS:
            self._budget.succeed()
        self._on_close()


class Fleet:
    """All workers of this gateway, by model."""

    def __init__(self, rng: random.Random) -> None:
        self.readiness_changed = asyncio.Event()
        self._rng = rng
        self._seats: dict[str, Seat] = {}
        self._budgets: dict[str, RetryBudget] = {}
        # What each address served last. A model whose workers are all away is known, though not available.
        self._last_models: dict[str, ServedModel] = {}
        self._models: Mapping[str, ServedModel] = MappingProxyType({})
        self._room_listeners: list[Callable[[], None]] = []

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The models by name, with the largest KV pool that a worker has for each. Never changed in place."""
        return self._models

    @property
    def seats(self) -> tuple[Seat, ...]:
        """The proven workers, those included that drain."""
        return tuple(self._seats.values())

    @property
    def is_serving(self) -> bool:
        """Whether at least one worker takes jobs."""
        return any(not seat.load.is_draining for seat in self.seats)

    def can_retry(self, model: ServedModel) -> bool:
        """Whether a failed attempt at ``model`` may be followed by another one."""
        return self._budgets[model.name].can_retry

    def join(self, client: WorkerClient, model: ServedModel, load: WorkerLoad) -> Seat:
        """Put a proven worker into rotation.

        Raises ``UnusableWorkerError`` when others serve something else under the same name: which of the two a client
        got would be a matter of chance.
        """
        for other in self._seats.values():
            if other.model.name == model.name and _digests(other.model) != _digests(model):
                raise UnusableWorkerError(
                    f"it serves {model.name!r} with {_digests(model)}, but {other.worker_id} serves the name with"
                    f" {_digests(other.model)}"
                )
        seat = self._seats[client.target] = Seat(client, model, load)
        self._last_models[client.target] = model
        self._models = self._largest_models()
        self._budgets.setdefault(model.name, RetryBudget())
        _LOGGER.info("worker %s serves %s", client.target, model.name)
        self.readiness_changed.set()
        self._tell_of_room()
        return seat

    def report(self, seat: Seat, load: WorkerLoad) -> None:
        """Take in a load report."""
        was_draining = seat.load.is_draining
        seat.receive(load)
        if load.is_draining != was_draining:
            _LOGGER.info("worker %s %s", seat.worker_id, "is draining" if load.is_draining else "takes jobs again")
            self.readiness_changed.set()
        self._tell_of_room()

    def leave(self, seat: Seat) -> None:
        """Take a worker out of rotation. Jobs that run there go on."""
        del self._seats[seat.worker_id]
        self._models = self._largest_models()
        self.readiness_changed.set()
        self._tell_of_room()

    def on_room(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever a job that found no room, or no worker, may fare otherwise.

        That is when a report comes in, when a job's stream ends, and when a worker comes or goes. It is called often,
        and in the middle of things: it only takes note.
        """
        self._room_listeners.append(listener)

    def can_serve(self, model: ServedModel, *, need_tokens: int, exclude: Collection[str]) -> bool:
        """Whether a worker not in ``exclude`` takes a job of ``need_tokens`` as soon as it has room."""
        return any(
            seat.worker_id not in exclude and need_tokens <= seat.load.total_blocks * seat.load.block_size
            for seat in self._seats_for(model)
        )

    def lease(
        self, model: ServedModel, *, need_tokens: int, exclude: Collection[str], expected_tokens: int | None = None
    ) -> Lease | None:
        """A place for a job on the best worker not in ``exclude``; None when there is none now.

        ``need_tokens`` is the most that the job can grow to, ``expected_tokens`` what it will probably fill. Where the
        latter is given, only a worker that has room for it is taken; otherwise one is taken whether it has room or not.
        """
        seats = self._seats_for(model)
        if expected_tokens is not None:
            seats = (seat for seat in seats if seat.has_room(expected_tokens))
        candidates = (seat.as_candidate() for seat in seats)
        chosen = pick(candidates, need_tokens=need_tokens, exclude=exclude, rng=self._rng)
        if chosen is None:
            return None
        blocks = chosen.blocks_for(need_tokens if expected_tokens is None else expected_tokens)
        seat = self._seats[chosen.worker_id]
        return Lease(seat, self._budgets[model.name], blocks=blocks, on_close=self._tell_of_room)

    def _tell_of_room(self) -> None:
        for listener in self._room_listeners:
            listener()

    def _seats_for(self, model: ServedModel) -> Iterable[Seat]:
        digests = _digests(model)
        return (
            seat
            for seat in self._seats.values()
            if not seat.load.is_draining and seat.model.name == model.name and _digests(seat.model) == digests
        )

    def _largest_models(self) -> Mapping[str, ServedModel]:
        seated = [seat.model for seat in self._seats.values()]
        return MappingProxyType(_largest_by_name(self._last_models.values()) | _largest_by_name(seated))


def _digests(model: ServedModel) -> tuple[str, str, str]:
    return (model.checkpoint_sha256, model.tokenizer_sha256, model.chat_template_sha256)


def _largest_by_name(models: Iterable[ServedModel]) -> dict[str, ServedModel]:
    ascending = sorted(models, key=lambda model: (model.name, model.kv_pool_tokens))
    return {model.name: model for model in ascending}
