"""What a request is let in with: its expected size, its time, its tenant's quota; and what is learned from it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.call import Call
from gateway.criticality import rank_of
from gateway.errors import DeadlineTooShortError
from gateway.guest import Guest
from gateway.jobs import PreparedRequest
from gateway.policy.decision import quota_record
from gateway.policy.expected_output import ExpectedOutput
from gateway.policy.lag import Lag
from gateway.policy.load import WorkerLoad
from gateway.policy.quota import QuotaRefusal, Quotas
from gateway.policy.refusals import over_quota
from gateway.policy.supply import first_token_s, reported_output
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2

# An output that ended so has come to its own end, and tells something of those to come.
_COMPLETE = (
    generation_pb2.FINISH_REASON_STOP,
    generation_pb2.FINISH_REASON_LENGTH,
    generation_pb2.FINISH_REASON_REPETITION,
)


class Intake:
    """Makes guests of requests, and settles with them. Make it inside a running event loop."""

    def __init__(self, fleet: Fleet, quotas: Quotas, *, max_wait_s: float) -> None:
        self._fleet = fleet
        self._quotas = quotas
        self._max_wait_s = max_wait_s
        self._expected = ExpectedOutput()
        self._lag = Lag()
        self._loop = asyncio.get_running_loop()

    @property
    def lag_s(self) -> float:
        """How much later than the workers' rates foretell first tokens come of late."""
        return self._lag.seconds(self._loop.time())

    def guest(self, prepared: PreparedRequest, call: Call) -> Guest:
        """``prepared`` as it begins to wait; ``settle`` it in any case. Raises ``QuotaExceededError``."""
        now, prompt_tokens = self._loop.time(), prepared.prompt_tokens
        model = prepared.request.model
        loads = [seat.load for seat in self._fleet.seats_for(model)]
        expected_output = self._expected.expect(
            model=model.name,
            tenant=prepared.tenant,
            prompt_tokens=prompt_tokens,
            max_output_tokens=prepared.max_output_tokens,
            reported=reported_output(loads),
        )
        tokens = prompt_tokens + expected_output
        on_decision = self._fleet.on_decision
        levels = None if on_decision is None else self._quotas.levels(prepared.tenant, now)
        quota = self._quotas.reserve(prepared.tenant, tokens=tokens, now=now)
        if levels and on_decision is not None:
            refusal = quota if isinstance(quota, QuotaRefusal) else None
            on_decision(quota_record(levels, tokens=tokens, refusal=refusal))
        if isinstance(quota, QuotaRefusal):
            raise over_quota(quota, prepared.tenant)
        return Guest(
            tenant=prepared.tenant,
            rank=rank_of(prepared.request.criticality),
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            size_bytes=prepared.size_bytes,
            arrived_at=now,
            deadline_at=call.deadline_at,
            leaves_at=self._leaves_at(loads, prompt_tokens, call.deadline_at, now),
            model=model,
            prepared=prepared,
            quota=quota,
        )

    def check_deadline(self, guest: Guest, *, wait_s: float) -> None:
        """Refuse ``guest``, which insists on all of its output, if it will not have the time for it on any worker.

        ``wait_s`` is how long it will wait before. Raises ``DeadlineTooShortError``.
        """
        error: DeadlineTooShortError | None = None
        remaining_s = guest.deadline_at - self._loop.time() - wait_s - self.lag_s
        for seat in self._fleet.seats_for(guest.model):
            try:
                guest.prepared.budget(seat.load, remaining_s=remaining_s, on_decision=self._fleet.on_decision)
            except DeadlineTooShortError as too_short:
                error = too_short
            else:
                return
        if error is not None:
            raise error

    def predict_first_token(self, guest: Guest, lease: Lease) -> None:
        """``guest`` goes to a worker; how soon its first token should come."""
        guest.predicted_first_token_s = first_token_s([lease.load], prompt_tokens=guest.prompt_tokens)

    def begin_anew(self, guest: Guest) -> None:
        """What ``guest`` waited for was not there: it may wait as long as a newcomer."""
        loads = [seat.load for seat in self._fleet.seats_for(guest.model)]
        guest.leaves_at = self._leaves_at(loads, guest.prompt_tokens, guest.deadline_at, self._loop.time())

    def note_first_token(self, guest: Guest) -> None:
        """How late its first token came, or is by now, from the worker that ``guest`` went to: it is there no more."""
        lease, guest.lease = guest.lease, None
        if lease is not None and guest.predicted_first_token_s:
            late_s = lease.first_token_s - guest.predicted_first_token_s
            self._lag.add(late_s, self._loop.time(), is_lower_bound=not lease.has_begun)

    def settle(self, guest: Guest, finished: generation_pb2.Finished | None, *, used_tokens: int | None) -> None:
        """``guest`` is over. ``used_tokens``: prompt and output; None if no worker began with it."""
        now = self._loop.time()
        self._quotas.settle(guest.quota, used_tokens=used_tokens, now=now)
        self.note_first_token(guest)
        if finished is not None and finished.reason in _COMPLETE:
            self._expected.learn(
                model=guest.model.name,
                tenant=guest.tenant,
                prompt_tokens=guest.prompt_tokens,
                output_tokens=finished.usage.output_token_count,
            )

    def _leaves_at(self, loads: Sequence[WorkerLoad], prompt_tokens: int, deadline_at: float, now: float) -> float:
        first_s = first_token_s(loads, prompt_tokens=prompt_tokens)
        return min(now + self._max_wait_s, deadline_at - first_s - self._lag.seconds(now))
