"""A worker that is in rotation, and the jobs that this gateway has there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from gateway.model import ServedModel
from gateway.policy.candidate import Candidate
from gateway.policy.demand import Demand, Fit
from gateway.policy.elsewhere import Elsewhere
from gateway.policy.load import WorkerLoad
from gateway.policy.outcomes import Outcome
from gateway.policy.outliers import Outliers
from gateway.policy.prefix_index import PrefixIndex
from gateway.policy.quarantine import MEMORY_S, Quarantine, Suspect
from gateway.policy.retry_budget import RetryBudget
from gateway.policy.stall import is_silent, is_stalled
from gateway.policy.standing import NO_PASS, Standing
from gateway.policy.unseen_work import UnseenWork
from gateway.prefix import prefix_stride
from gateway.workers.client import WorkerClient
from gateway.workers.held_call import HeldCall

# A stream of fewer tokens says little about the time between them.
_MIN_PACED_TOKENS = 8


class Seat:
    """A worker that has proven itself, from its handshake until it is lost."""

    def __init__(
        self, client: WorkerClient, model: ServedModel, load: WorkerLoad, standing: Standing, clock: Callable[[], float]
    ) -> None:
        self.client = client
        self.worker_id = client.target  # the worker's address, which tells it from the others
        self.model = model
        self.load = load
        self.standing = standing
        self.unseen = UnseenWork(load.sample_number)
        stride = prefix_stride(load.block_size)
        self.prefixes = PrefixIndex(max_entries=load.total_blocks * load.block_size // stride)
        self.in_flight = 0
        self.in_flight_blocks = 0
        self.joined_at = clock()
        self._held: set[Lease] = set()  # those whose calls run
        self.clock = clock
        self._is_doubtful = False
        self._has_refused = False
        self.is_lost = False
        self.is_gone = False  # lost, and not for want of a sign of life: its connection broke

    def receive(self, load: WorkerLoad) -> None:
        """Take in a load report; what a single job held against the worker was before it."""
        self.load = load
        self.unseen.receive_report(load.sample_number)
        self._is_doubtful = self._has_refused = False
        if is_stalled(load):
            self.standing.stall(self.clock())

    def hold(self, lease: Lease) -> None:
        """The call of ``lease`` begins."""
        self._held.add(lease)

    def release(self, lease: Lease) -> None:
        """The call of ``lease`` has ended."""
        self._held.discard(lease)

    def give_up(self, *, also_begun: bool) -> None:
        """The worker is lost, or stands still: who waits there for a first token had better go elsewhere.

        ``also_begun``: so had those streams that have begun; there is somebody to go on with them.
        """
        for lease in self._held:
            if also_begun or not lease.has_begun:
                lease.call.give_up()

    def lose(self, *, is_silent: bool, also_begun: bool) -> None:
        """The worker is out of rotation: as ``give_up``, and for those calls, too, that are about to begin.

        ``is_silent``: it only makes no sign of life. One that drains ends its reports with its last job, whose end may
        still be on its way, and with it the news that the engine died of that.
        """
        self.is_lost, self.is_gone = True, not is_silent
        if is_silent or not self.load.is_draining:
            self.give_up(also_begun=also_begun)

    def doubt(self, *, has_refused: bool) -> None:
        """A job was refused there for want of room, or failed."""
        self._is_doubtful = True
        self._has_refused = self._has_refused or has_refused

    @property
    def free_tokens(self) -> int:
        """Room that further jobs would find now; none where none would be taken."""
        load, unseen = self.load, self.unseen
        has_place = load.admissible_requests is None or unseen.requests < load.admissible_requests
        if self._has_refused or not has_place:
            return 0
        return max(0, load.available_blocks - unseen.blocks) * load.block_size

    def has_room(self, demand: Demand, fit: Fit, spare_tokens: int) -> bool:
        """Whether a job would find its ``fit`` now, by the last report and by what was sent since.

        ``spare_tokens`` are those that it has to leave over here.
        """
        load, unseen = self.load, self.unseen
        is_idle = not load.reserved_blocks and not unseen.blocks
        blocks = -(-(fit.expected_tokens + (0 if is_idle else spare_tokens)) // load.block_size)
        before_tokens, most_tokens = load.pending_prefill_tokens + unseen.prefill_tokens, fit.prefill_line_tokens
        has_time = (
            load.admissible_prompt_tokens is None
            or demand.prompt_tokens + unseen.prefill_tokens <= load.admissible_prompt_tokens
        ) and (most_tokens is None or not before_tokens or before_tokens + demand.prompt_tokens <= most_tokens)
        return has_time and blocks * load.block_size <= self.free_tokens

    def is_out(self, now: float) -> bool:
        """Whether no job is to go there, in this gateway's opinion."""
        return is_silent(self.load, now) or not self.standing.can_take(now)

    def out_for_s(self, now: float) -> float:
        """How bad it looks: for how long the worker will be out, or has been silent."""
        silent_s = now - self.load.received_at if is_silent(self.load, now) else 0.0
        return max(silent_s, self.standing.retry_in_s(now))

    def cached_tokens(self, demand: Demand) -> int:
        """How many tokens of a job's prompt the worker should have in its cache."""
        return round(self.prefixes.held(demand.prefix) * demand.prefix_stride * self.prefixes.trust)

    def as_candidate(self, demand: Demand, now: float, *, weight: float) -> Candidate:
        """How the worker looks to a job at this instant."""
        return Candidate(
            worker_id=self.worker_id,
            load=self.load,
            load_age_s=now - self.load.received_at,
            unseen_blocks=self.unseen.blocks,
            unseen_prefill_tokens=self.unseen.prefill_tokens,
            in_flight=self.in_flight,
            cached_tokens=self.cached_tokens(demand),
            weight=weight,
            is_probe=self.standing.is_on_probation and not self.is_out(now),
            is_doubtful=self._is_doubtful,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """What all workers share that stand in for one another."""

    budget: RetryBudget
    outliers: Outliers
    quarantine: Quarantine
    elsewhere: Elsewhere
    on_end: Callable[[], None]  # called whenever a job has ended
    on_suspicion: Callable[[], None]  # called when a job may have killed its worker


class Lease:
    """A job's place on a worker, a context manager around the worker's call.

    Close it exactly once, when the job's stream has ended. No generator: of these there is one for each stream.
    """

    __slots__ = (
        "_began_at",
        "_digest",
        "_is_admitted",
        "_pass",
        "_peers",
        "_promised_tokens",
        "_seat",
        "_sent",
        "_sent_at",
        "call",
        "can_continue",
        "client",
        "is_suspect",
        "load",
        "predicted_ttft_s",
        "predictions",
        "worker_id",
    )

    def __init__(  # noqa: PLR0913 - what it stands for, and why
        self,
        seat: Seat,
        demand: Demand,
        peers: Peers,
        *,
        predictions: Mapping[str, float],
        blocks: int,
        cached_tokens: int,
    ) -> None:
        """``predictions`` are those by which the worker was chosen; ``blocks`` are those that it will probably fill.

        ``cached_tokens`` of the prompt are thought to be in its cache.
        """
        self.worker_id = seat.worker_id
        self.client = seat.client
        self.load = seat.load
        self.can_continue = seat.model.can_continue
        self.predictions = predictions
        self.predicted_ttft_s = predictions[seat.worker_id]
        self._seat = seat
        self._peers = peers
        self.call = HeldCall()
        self._began_at: float | None = None
        self._is_admitted = False
        self.is_suspect = False  # once closed: whether the worker's engine died with the job, which had no token
        self._sent_at = seat.clock()
        self._pass = seat.standing.take(self._sent_at) if not seat.is_out(self._sent_at) else NO_PASS
        self._digest = demand.digest
        self._promised_tokens = seat.prefixes.held(demand.prefix) * demand.prefix_stride
        self._sent = seat.unseen.send(
            blocks=blocks,
            prefill_tokens=max(0, demand.prompt_tokens - cached_tokens),
        )
        seat.prefixes.send(demand.prefix)
        seat.in_flight += 1
        seat.in_flight_blocks += blocks

    def __enter__(self) -> None:
        """Around the worker's call: ends it with ``WorkerCallError`` when the worker is given up."""
        if self._seat.is_lost:  # since it was leased; nobody else would tell the job
            self.call.give_up()
        self.call.begin()
        self._seat.hold(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seat.release(self)
        self.call.end(error)

    @property
    def has_begun(self) -> bool:
        """Whether the job's first event has come."""
        return self._began_at is not None

    @property
    def first_token_s(self) -> float:
        """How long the job's first event took, or has been awaited so far."""
        return (self._seat.clock() if self._began_at is None else self._began_at) - self._sent_at

    def admit(self, sample_number: int | None) -> None:
        """The worker has admitted the job, after it had made load report ``sample_number``, if it says so."""
        self._is_admitted = sample_number is not None
        self._seat.unseen.admit(self._sent, sample_number)

    def begin(self) -> None:
        """The job's first event has come. Calls after the first do nothing."""
        if self._began_at is not None:
            return
        self._began_at = self._seat.clock()
        self._seat.standing.begin(self._pass, self._began_at)
        self._peers.quarantine.pass_over(self._digest, self._began_at)
        self._peers.outliers.add_first_token(
            self.worker_id,
            seconds=self._began_at - self._sent_at,
            predicted_s=self.predicted_ttft_s,
            now=self._began_at,
        )

    def close(
        self,
        outcome: Outcome,
        *,
        is_lost: bool = False,
        reason: str = "",
        output_tokens: int = 0,
        cached_tokens: int | None = None,
    ) -> None:
        """The job's attempt has ended so; ``is_lost``: with its worker, which may have given a ``reason``.

        ``cached_tokens`` of the prompt came out of the cache, where the answer told.
        """
        now = self._seat.clock()
        self._seat.in_flight -= 1
        self._seat.in_flight_blocks -= self._sent.blocks
        self._seat.unseen.end(self._sent)
        if outcome is Outcome.SUCCESS:
            self._peers.quarantine.clear(self._digest, now)
        elif is_lost and self._is_admitted:
            self._suspect(reason, now)
        if outcome in (Outcome.FAILED, Outcome.REFUSED):
            self._seat.doubt(has_refused=outcome is Outcome.REFUSED)
        has_begun = self._began_at is not None
        is_news = self._seat.standing.close(self._pass, outcome, now, has_begun=has_begun, is_lost=is_lost)
        if is_news and not (is_lost and has_begun):  # it goes on, and is no retry
            self._peers.budget.fail()
        elif outcome is Outcome.SUCCESS:
            self._peers.budget.succeed()
        if cached_tokens is not None:
            self._seat.prefixes.confirm(promised_tokens=self._promised_tokens, cached_tokens=cached_tokens)
        if self._began_at is not None and output_tokens >= _MIN_PACED_TOKENS:
            pace_s = (now - self._began_at) / (output_tokens - 1)
            self._peers.outliers.add_next_token(self.worker_id, seconds=pace_s, now=now)
        self._peers.on_end()

    def _suspect(self, reason: str, now: float) -> None:
        """The job, which the engine was given, may be what the worker died of, unless that went for its own reasons."""
        load, has_died = self._seat.load, reason == "ENGINE_DEAD"
        if not has_died and (reason or load.is_draining):
            return
        self.is_suspect = has_died and self._began_at is None
        if self._digest and load.instance_id:
            suspect = Suspect(
                digest=self._digest,
                instance_id=load.instance_id,
                remaining_s=MEMORY_S,
                is_silent=not has_died,
                is_faint=self._began_at is not None or (self.call.is_given_up and not self._seat.is_gone),
            )
            if self._peers.quarantine.add([suspect], now):
                self._peers.on_suspicion()
