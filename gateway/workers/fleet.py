"""The workers in rotation, and what this gateway has running on each.

Only ``WorkerConnection`` writes here. Requests see immutable snapshots, and leases that last as long as their streams.
All of this is soft state of one replica: any other replica comes to the same view from the workers' own reports.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from gateway.errors import RequestQuarantinedError
from gateway.model import ServedModel
from gateway.policy.balancer import pick
from gateway.policy.breaker import Breaker, BreakerLimits
from gateway.policy.candidate import Candidate
from gateway.policy.decision import route_record
from gateway.policy.demand import Demand, Fit
from gateway.policy.ejection import REPRIEVED_WEIGHT, reprieved
from gateway.policy.elsewhere import Elsewhere, GatewayQueue
from gateway.policy.kept_room import kept_on_each
from gateway.policy.load import WorkerLoad
from gateway.policy.outliers import Outliers
from gateway.policy.quarantine import Quarantine
from gateway.policy.record import SEED_BITS, Record
from gateway.policy.recorded_breaker import RecordedBreaker
from gateway.policy.retry_budget import RetryBudget
from gateway.policy.stall import is_stalled
from gateway.policy.standing import Phase, Standing
from gateway.workers.client import WorkerClient
from gateway.workers.errors import UnusableWorkerError
from gateway.workers.seat import Lease, Peers, Seat

_LOGGER = logging.getLogger(__name__)

# In a fleet in which nobody has been at work for so long, a new worker is not given time: all are new.
_AT_WORK_S = 5.0

_ID_BITS = 64


class Fleet:
    """All workers of this gateway, by model."""

    def __init__(self, rng: random.Random, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` is the one by which loads were received."""
        self.readiness_changed = asyncio.Event()
        self.named: set[str] = set()  # addresses of all workers that there should be
        self.gateway_id = rng.getrandbits(_ID_BITS)
        self.on_decision: Callable[[Record], None] | None = None  # told of each choice of a worker
        self._rng = rng
        self._clock = clock
        self._seats: dict[str, Seat] = {}
        self._serving: dict[tuple[str, ...], tuple[Seat, ...]] = {}  # by name and digests, until something changes
        self._latest_model: ServedModel | None = None  # that was asked for since then, and who serves it
        self._latest_seats: tuple[Seat, ...] = ()
        self._standings: dict[str, Standing] = {}  # by address, also of workers that are away
        self._peers: dict[str, Peers] = {}  # by model
        self.quarantine = Quarantine()
        self.suspicion = asyncio.Event()  # set when the workers are to be told of something
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

    @property
    def beginners(self) -> Collection[str]:
        """The workers that cannot go on with the output of another one."""
        return [seat.worker_id for seat in self.seats if not seat.model.can_continue]

    def can_retry(self, model: ServedModel) -> bool:
        """Whether a failed attempt at ``model`` may be followed by another one."""
        return self._peers[model.name].budget.can_retry

    def refuse_poison(self, demand: Demand) -> None:
        """Raise ``RequestQuarantinedError`` for a request that was on two workers when they died."""
        if demand.digest not in self.quarantine:
            return
        now = self._clock()
        last_reports = {
            seat.load.instance_id: seat.load.received_at
            for seat in self._seats.values()
            if not seat.load.is_draining  # whose engine is dead reports for some seconds more
        }
        sentence = self.quarantine.sentence(demand.digest, last_reports, now)
        if sentence is not None:
            raise RequestQuarantinedError(
                f"{sentence.deaths} workers died with this request; it is not run for {sentence.remaining_s:.0f} s",
                metadata={
                    "request_digest": demand.digest.hex(),
                    "deaths": str(sentence.deaths),
                    "expires_in_s": str(math.ceil(sentence.remaining_s)),
                },
            )

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
        now = self._clock()
        standing = self._standings.get(client.target)
        if standing is None:
            standing = self._standings[client.target] = Standing(partial(self._breaker, client.target))
        is_at_work = any(now - other.joined_at >= _AT_WORK_S for other in self._seats.values())
        standing.join(now, is_slow=is_at_work)
        self.quarantine.add(load.suspects, now)
        if model.name not in self._peers:
            self._peers[model.name] = Peers(
                budget=RetryBudget(),
                outliers=Outliers(),
                quarantine=self.quarantine,
                elsewhere=Elsewhere(self.gateway_id),
                on_end=self._tell_of_room,
                on_suspicion=self.suspicion.set,
            )
        self._peers[model.name].outliers.forget(client.target)
        seat = self._seats[client.target] = Seat(client, model, load, standing, self._clock)
        self._last_models[client.target] = model
        self._serve_anew()
        self._models = self._largest_models()
        if len(self.quarantine):
            self.suspicion.set()
        _LOGGER.info("worker %s serves %s", client.target, model.name)
        self.readiness_changed.set()
        self._tell_of_room()
        return seat

    def report(self, seat: Seat, load: WorkerLoad) -> None:
        """Take in a load report."""
        was_draining = seat.load.is_draining
        seat.receive(load)
        if is_stalled(load):
            seat.give_up(also_begun=self._has_stand_in(seat))
        self.quarantine.add(load.suspects, self._clock())
        self._peers[seat.model.name].elsewhere.hear(load.gateway_queues)
        if load.is_draining != was_draining:
            self._serve_anew()
            _LOGGER.info("worker %s %s", seat.worker_id, "is draining" if load.is_draining else "takes jobs again")
            self.readiness_changed.set()
        self._tell_of_room()

    def leave(self, seat: Seat, *, is_silent: bool = False) -> None:
        """Take a worker out of rotation. Jobs there go on; those without a first token are told, if it does not drain.

        Where it ``is_silent`` for no reason it hangs, or is out of reach: all jobs are told if others can go on with
        them. Otherwise it may come back in time, and a connection that is dead is found so by its keepalive.
        """
        del self._seats[seat.worker_id]
        self._serve_anew()
        seat.lose(is_silent=is_silent, also_begun=is_silent and self._has_stand_in(seat))
        self._models = self._largest_models()
        self.readiness_changed.set()
        self._tell_of_room()

    def forget(self, address: str) -> None:
        """The worker is named no more, and will not come back. The last one of a model leaves word of the model."""
        self._standings.pop(address, None)
        gone = self._last_models.get(address)
        if gone is None:
            return
        self._peers[gone.name].outliers.forget(address)
        if sum(model.name == gone.name for model in self._last_models.values()) > 1:
            del self._last_models[address]
            self._models = self._largest_models()

    def on_room(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever a job that found no room, or no worker, may fare otherwise.

        That is when a report comes in, when a job's stream ends, and when a worker comes or goes. It is called often,
        and in the middle of things: it only takes note.
        """
        self._room_listeners.append(listener)

    def seats_for(self, model: ServedModel) -> Sequence[Seat]:
        """The workers that take jobs for ``model``."""
        if model is self._latest_model:
            return self._latest_seats
        kind = (model.name, *_digests(model))
        seats = self._serving.get(kind)
        if seats is None:
            seats = self._serving[kind] = tuple(
                seat
                for seat in self._seats.values()
                if not seat.load.is_draining and (seat.model.name, *_digests(seat.model)) == kind
            )
        self._latest_model, self._latest_seats = model, seats
        return seats

    def _serve_anew(self) -> None:
        """Somebody takes jobs, or takes them no more."""
        self._serving.clear()
        self._latest_model = None

    def gateways_elsewhere(self, model: ServedModel) -> list[GatewayQueue]:
        """The other gateways that were heard of for ``model`` of late."""
        peers = self._peers.get(model.name)
        return [] if peers is None else peers.elsewhere.gateways(self._clock())

    def queues_elsewhere(self, model: ServedModel) -> list[GatewayQueue]:
        """What waits for ``model`` in other gateways."""
        peers = self._peers.get(model.name)
        return [] if peers is None else peers.elsewhere.queues(self._clock())

    def has_room(self, model: ServedModel, demand: Demand, fit: Fit, *, exclude: Collection[str]) -> bool:
        """Whether a worker not in ``exclude`` has room for a job now, as ``lease`` counts it."""
        return any(seat.worker_id not in exclude for seat in self._with_room(model, demand, fit))

    def can_serve(self, model: ServedModel, *, need_tokens: int, exclude: Collection[str]) -> bool:
        """Whether a worker not in ``exclude`` takes a job of ``need_tokens`` as soon as it has room."""
        return any(
            seat.worker_id not in exclude and need_tokens <= seat.load.total_blocks * seat.load.block_size
            for seat in self.seats_for(model)
        )

    def lease(
        self,
        model: ServedModel,
        demand: Demand,
        fit: Fit | None = None,
        *,
        exclude: Collection[str],
    ) -> Lease | None:
        """A place for a job of ``demand`` on the best worker not in ``exclude``; None when there is none now.

        Only a worker is taken that has ``fit``; where none is given, one is taken whether it has room or not.
        """
        candidates = self._candidates(model, demand, fit)
        if self.on_decision is None:
            choice = pick(candidates, demand, exclude=exclude, rng=self._rng)
        else:
            seed = self._rng.getrandbits(SEED_BITS)  # with which the choice can be made again
            choice = pick(candidates, demand, exclude=exclude, rng=random.Random(seed))
            self.on_decision(route_record(candidates, demand, exclude=exclude, seed=seed, choice=choice))
        if choice is None:
            return None
        return Lease(
            self._seats[choice.worker.worker_id],
            demand,
            self._peers[model.name],
            predictions=choice.predicted_ttft_s,
            blocks=choice.worker.blocks_for(demand.need_tokens if fit is None else fit.expected_tokens),
            cached_tokens=choice.worker.cached_tokens,
        )

    def _breaker(self, worker_id: str, phase: Phase, limits: BreakerLimits) -> Breaker:
        if self.on_decision is None:
            return Breaker(limits, self._rng)
        labels = {"breaker": self._rng.getrandbits(SEED_BITS), "worker_id": worker_id, "phase": phase.value}
        seed = self._rng.getrandbits(SEED_BITS)
        return RecordedBreaker(limits, seed=seed, labels=labels, on_decision=self.on_decision)

    def _has_stand_in(self, seat: Seat) -> bool:
        """Whether another worker is fit to go on with the streams of ``seat``.

        None is when all fall silent at once: it is this gateway then that was stopped, or cut off.
        """
        now = self._clock()
        return any(
            other is not seat and other.model.can_continue and not other.is_out(now)
            for other in self.seats_for(seat.model)
        )

    def _tell_of_room(self) -> None:
        for listener in self._room_listeners:
            listener()

    def _with_room(self, model: ServedModel, demand: Demand, fit: Fit) -> Sequence[Seat]:
        seats = self.seats_for(model)
        if not fit.spare_tokens:
            return [seat for seat in seats if seat.has_room(demand, fit, 0)]
        now = self._clock()
        kept = kept_on_each([0 if seat.is_out(now) else seat.free_tokens for seat in seats], fit)
        return [seat for seat, spare in zip(seats, kept, strict=True) if seat.has_room(demand, fit, spare)]

    def _candidates(self, model: ServedModel, demand: Demand, fit: Fit | None) -> list[Candidate]:
        """The workers that may be given a job: those that are not out, or would be too many to leave out."""
        now, seats = self._clock(), self.seats_for(model)
        out: dict[str, float] = {}
        for seat in seats:
            if seat.is_out(now):
                out[seat.worker_id] = seat.out_for_s(now)
        kept = reprieved(out, total=len(seats)) if out else ()
        slow = self._peers[model.name].outliers.weights(now) if seats else {}
        candidates: list[Candidate] = []
        for seat in seats if fit is None else self._with_room(model, demand, fit):
            if seat.worker_id not in out:
                weight = seat.standing.weight(now) * slow.get(seat.worker_id, 1.0)
                candidates.append(seat.as_candidate(demand, now, weight=weight))
            elif seat.worker_id in kept:
                candidates.append(seat.as_candidate(demand, now, weight=REPRIEVED_WEIGHT))
        return candidates

    def _largest_models(self) -> Mapping[str, ServedModel]:
        seated = [seat.model for seat in self._seats.values()]
        return MappingProxyType(_largest_by_name(self._last_models.values()) | _largest_by_name(seated))


def _digests(model: ServedModel) -> tuple[str, str, str]:
    return (model.checkpoint_sha256, model.tokenizer_sha256, model.chat_template_sha256)


def _largest_by_name(models: Iterable[ServedModel]) -> dict[str, ServedModel]:
    ascending = sorted(models, key=lambda model: (model.name, model.kv_pool_tokens))
    return {model.name: model for model in ascending}
