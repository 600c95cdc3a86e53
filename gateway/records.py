"""What is recorded of a generation on its way through this gateway: spans of its stages, metrics, a journal entry.

One span for each stage below the call's: ``validate``, ``queue``, ``route``, and for each attempt one that covers the
worker's call (``spans.AttemptSpan``). However a generation ends, all of them have ended with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from operator import itemgetter
from types import TracebackType
from typing import Final, Self

from gateway.call import Call
from gateway.errors import GatewayError, to_rpc
from gateway.jobs import PreparedRequest
from gateway.journal import Entry, Journal
from gateway.measures import OK, Measures
from gateway.passage import Passage
from gateway.policy.outcomes import Outcome
from gateway.spans import AttemptSpan, operation_of
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import RpcError
from tidegate.telemetry import conventions as names
from tidegate.telemetry.labels import BoundedLabels
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import Facts, Form, Names, Span, current_span

_CANCELLED = "cancelled"
_STAGES = {name: Form(name) for name in (names.VALIDATE, names.QUEUE, names.CONTINUATION)}
_ROUTE: Final = Form(names.ROUTE)
_ROUTED: Final = Names(
    names.SERVER_ADDRESS,
    names.PREDICTED_FIRST_TOKEN,
    names.AVAILABLE_BLOCKS,
    names.LOAD_AGE,
    names.ROUTE_CANDIDATES,
    names.ROUTE_CANDIDATES_FIRST_TOKEN,
)
_ENDED: Final = Names(
    names.TENANT,
    names.CRITICALITY,
    names.OUTCOME,
    names.ATTEMPTS,
    names.WAITED,
    names.GEN_AI_USAGE_OUTPUT_TOKENS,
)
_REFUSED: Final = Names(names.ERROR_TYPE)
_BY_PREDICTION: Final = itemgetter(1)
# A decision among hundreds of workers is told by those that came near.
_SHOWN_CANDIDATES = 8
# Refusals whose message says why this one and when to come back. Other messages repeat parts of the request.
_EXPLAINED = (
    "KV_",
    "WAIT_",
    "REQUEST_QUARANTINED",
    "ADMISSION_",
    "QUOTA_",
    "NO_WORKER",
    "DRAINING",
    "DEADLINE_",
    "STREAM_",
    "EVICTED",
)


class Records:
    """Records the generations of one gateway."""

    def __init__(
        self,
        telemetry: Telemetry,
        journal: Journal,
        tenants: BoundedLabels,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` is the journal's and that of loads; ``tenants`` bounds what metrics tell apart."""
        self.measures = Measures(telemetry.metrics)
        self.clock = clock
        self.tenants = tenants
        self.journal = journal
        self._waiting: dict[tuple[str, str], int] = {}

    @property
    def waiting(self) -> Mapping[tuple[str, str], int]:
        """Generations in the waiting room, by criticality and tenant. From any thread."""
        return dict(self._waiting)

    def wait(self, criticality: str, tenant: str, change: int) -> None:
        """One more, or one less, waits."""
        key = (criticality, tenant)
        waiting = self._waiting.get(key, 0) + change
        if waiting:
            self._waiting[key] = waiting
        else:
            del self._waiting[key]

    def begin(self, call: Call) -> Record:
        """A call has come. Use it as a context manager around all that is done for the call."""
        return Record(self, call)


class Record:
    """One generation."""

    __slots__ = (
        "_attempts",
        "_began_at",
        "_call",
        "_continuations",
        "_first_at",
        "_lease",
        "_passage",
        "_prepared",
        "_records",
        "_span",
        "_waited_s",
        "_waits_since",
        "tenant",
    )

    def __init__(self, records: Records, call: Call) -> None:
        """Use ``Records.begin``."""
        self.tenant = ""  # once it is known
        self._records = records
        self._call = call
        self._began_at = records.clock()
        self._first_at: float | None = None
        self._prepared: PreparedRequest | None = None
        self._waited_s = self._waits_since = 0.0
        self._attempts = 0
        self._continuations = 0
        self._lease: Lease | None = None
        self._passage: Passage | None = None
        self._span = current_span()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, trace
        self._end(error)

    def begin_wait(self) -> None:
        """It begins to wait for a worker."""
        self._waits_since = self._records.clock()
        self._records.wait(self._criticality, self.tenant, 1)

    def end_wait(self) -> None:
        """It has a worker, or none."""
        self._records.wait(self._criticality, self.tenant, -1)
        self._waited_s += self._records.clock() - self._waits_since

    def stage(self, name: str) -> Stage:
        """A stage of the generation."""
        return _UNTRACED if self._span is None else Stage(self._span.child(_STAGES[name]))

    def prepared(self, prepared: PreparedRequest, passage: Passage) -> None:
        """The request is valid; ``passage`` will know what its client was sent."""
        self._prepared = prepared
        self._passage = passage

    def attempt(self, lease: Lease, *, delivered_tokens: int = 0) -> AttemptSpan:
        """A worker was chosen and is about to be asked; ``delivered_tokens`` came from others before."""
        prepared = self._prepared
        if prepared is None:
            raise ValueError("an attempt before the request was prepared")
        self._lease = lease
        self._attempts += 1
        if self._first_at is not None:
            self._continuations += 1
            self._records.measures.continuation()
        if self._span is not None:
            self._route(lease, self._span)
        return AttemptSpan(
            self._span,
            prepared,
            lease,
            number=self._attempts,
            delivered_tokens=delivered_tokens,
        )

    def _route(self, lease: Lease, call: Span) -> None:
        considered = list(lease.predictions.items())
        if len(considered) > 1:
            considered.sort(key=_BY_PREDICTION)
            del considered[_SHOWN_CANDIDATES:]
        span = call.child(_ROUTE)
        span.set(
            Facts(
                _ROUTED,
                (
                    lease.worker_id,
                    lease.predicted_ttft_s,
                    lease.load.available_blocks,
                    self._records.clock() - lease.load.received_at,
                    tuple([worker_id for worker_id, _ in considered]),
                    tuple([seconds for _, seconds in considered]),
                ),
            )
        )
        span.end()

    def first_token(self) -> None:
        """The first message is about to be sent. Calls after the first do nothing."""
        if self._first_at is None:
            self._first_at = self._records.clock()

    def attempted(self, lease: Lease, outcome: Outcome, error: RpcError | None) -> None:
        """The attempt has ended so; ``error`` is the worker's."""
        error_type = None if error is None else error.reason or error.code.name
        self._records.measures.attempt(lease.worker_id, outcome.value, error_type)

    def _end(self, error: BaseException | None) -> None:
        records, now = self._records, self._records.clock()
        rpc_error = to_rpc(error) if isinstance(error, Exception) else None
        outcome = OK if error is None else rpc_error.reason if rpc_error is not None else _CANCELLED
        tenant = records.tenants.label(self.tenant)
        if rpc_error is not None:
            records.measures.refusal(
                rpc_error.reason,
                tenant=tenant,
                criticality=self._criticality,
                retry_after_s=rpc_error.retry_after_s,
            )
        self._measure(now, outcome)
        records.journal.note(self._entry(now, outcome, rpc_error), tenant_label=tenant)
        if self._span is None:
            return
        self._span.set(
            Facts(
                _ENDED,
                (self.tenant, self._criticality, outcome, self._attempts, self._waited_s, self._output_tokens),
            )
        )

    def _measure(self, now: float, outcome: str) -> None:
        prepared = self._prepared
        if prepared is None:
            return
        measures = self._records.measures.of_kind(
            operation_of(prepared), prepared.request.model.name, self._criticality
        )
        measures.ended(now - self._began_at, outcome)
        measures.waited(self._waited_s, "admitted" if self._attempts else outcome)
        if self._first_at is not None:
            measures.answered(
                first_s=self._first_at - self._began_at,
                following_s=now - self._first_at,
                input_tokens=prepared.prompt_tokens,
                output_tokens=self._output_tokens,
            )

    @property
    def _output_tokens(self) -> int:
        return 0 if self._passage is None else self._passage.tokens

    @property
    def _criticality(self) -> str:
        return "" if self._prepared is None else _CRITICALITIES[self._prepared.request.criticality]

    def _entry(self, now: float, outcome: str, error: RpcError | None) -> Entry:
        lease, prepared = self._lease, self._prepared
        return Entry(
            ended_at=now,
            response_id=self._call.response_id,
            model=prepared.request.model.name if prepared is not None else "",
            tenant=self.tenant,
            criticality=self._criticality,
            outcome=outcome,
            explanation=self._explanation(outcome, error),
            worker=lease.worker_id if lease is not None else "",
            attempts=self._attempts,
            continuations=self._continuations,
            waited_s=self._waited_s,
            first_token_s=None if self._first_at is None else self._first_at - self._began_at,
            duration_s=now - self._began_at,
            output_tokens=self._output_tokens,
            retry_after_s=error.retry_after_s if error is not None else None,
        )

    def _explanation(self, outcome: str, error: RpcError | None) -> str:
        if error is not None:
            why = error.message if error.reason.startswith(_EXPLAINED) else "see docs/errors.md"
            return why if error.retry_after_s is None else f"{why}; retry in {error.retry_after_s:.2g} s"
        lease = self._lease
        if lease is None:
            return "the client left before a worker was found"
        load = lease.load
        chosen = (
            f"{lease.worker_id}: first token foreseen in {lease.predicted_ttft_s:.2g} s, "
            f"{load.available_blocks} of {load.total_blocks} blocks free"
        )
        return chosen if outcome == OK else f"the client left; {chosen}"


class Stage:
    """A span around a stage. It is not the current one: nothing is below it, and it costs less so."""

    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        """None where the generation is not recorded."""
        self._span = span

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, trace
        span = self._span
        if span is None:
            return
        if isinstance(error, GatewayError):
            span.set(Facts(_REFUSED, (to_rpc(error).reason,)))
        span.end()


_UNTRACED: Final = Stage(None)

# The labels: sheddable_plus, and the like.
_CRITICALITIES = {
    value: name.removeprefix("CRITICALITY_").lower() for name, value in generation_pb2.Criticality.items()
}
