"""One generation, from its admission to its end: engine outputs in, public responses out.

Each output is answered from inside the engine's step; the generation's own task sleeps until the last.
The ledger's reservation and the engine's job live exactly as long as ``Generation.run`` does: however it ends, by the
last token, an error, the deadline or a cancelled call, both are given back in its one ``finally``.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial

from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.worker.v1 import worker_service_pb2
from worker.deadline import Deadline
from worker.engine import EngineError, EngineFinish, EngineOutput, FinishReason, GenerationJob, TokenLogprob, Wait
from worker.errors import ConstraintViolatedError
from worker.ledger import Reservation
from worker.model import ServedModel
from worker.prefix import shareable_names

_Response = inference_service_pb2.GenerateResponse

_REASONS = {
    FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.REPETITION: generation_pb2.FINISH_REASON_REPETITION,
}


# Sends responses that belong together. Returned is None, or the wait that has to end before it sends more.
SendResponses = Callable[[tuple[_Response, ...]], Wait | None]


class Generation:
    """Runs once."""

    def __init__(
        self,
        model: ServedModel,
        job: GenerationJob,
        request: worker_service_pb2.GenerateRequest,
        send: SendResponses,
    ) -> None:
        """``job`` is what ``request`` asks the engine for; the rest of it is answered here."""
        self._model = model
        self._job = job
        self._request = request
        self._send = send
        self._includes_token_ids = request.output.include_token_ids
        self._is_started = request.is_started
        self._text: list[str] = []  # kept only to be checked against the constraint
        self._names = shareable_names(job.computed_token_ids, model.facts.block_size)
        self._record = model.records.begin(prompt_tokens=len(job.prompt_token_ids))
        self._finish: EngineFinish | None = None
        self._unsent: tuple[_Response, ...] = ()  # what goes with Finished

    async def run(
        self, deadline_at: float | None, *, on_admitted: Callable[[], Awaitable[None]] | None = None
    ) -> generation_pb2.Finished:
        """Admit the job and send what comes of it; returns the last response.

        ``deadline_at`` is in the event loop's time; ``on_admitted`` comes in between. Raises ``AtCapacityError``,
        ``ConstraintRejectedError``, ``ConstraintViolatedError``, ``DeadlineExceededError``, what the engine raises and
        what sending raises.
        """
        with Deadline(deadline_at) as deadline:
            model, job = self._model, self._job
            if job.constraint is not None:
                await deadline.wait(model.constraints.check(job.constraint))
            had_work = model.pace.has_work
            reservation = model.ledger.admit(
                tenant=self._request.tenant,
                # What was generated elsewhere is to this engine a longer prompt.
                prompt_tokens=len(job.computed_token_ids),
                max_output_tokens=max(1, job.sampling.max_output_tokens - job.continued_tokens),
                prompt_names=self._names,
            )
            self._record.reserved_tokens = model.ledger.reserved_output_tokens(reservation)
            is_complete = False
            try:
                model.pace.give_work(had_work=had_work)
                model.load_feed.changed()
                if on_admitted is not None:
                    await on_admitted()
                await deadline.wait(model.engine.generate(job, partial(self._take, reservation)))
                finished = await self._finished(reservation, deadline)
                is_complete = True
                lag = self._send((*self._unsent, _Response(finished=finished)))
                if lag is not None:
                    await deadline.wait(lag())
                model.prefetcher.note(job.computed_token_ids, self._names)  # not before: no token waits for it
                return finished
            finally:
                # Part of an output teaches nothing about whole ones.
                model.ledger.release(reservation, is_complete=is_complete and job.continued is None)
                model.load_feed.changed()
                self._record.end(sys.exception())

    def _take(self, reservation: Reservation, output: EngineOutput) -> Wait | None:
        """See ``Engine.generate``."""
        ledger, new_tokens = self._model.ledger, len(output.token_ids)
        self._record.output(new_tokens, output.finish)
        if not reservation.has_begun:
            ledger.begin(reservation, cached_tokens=output.cached_prompt_tokens)
        if new_tokens:
            ledger.extend(reservation, new_tokens)
        responses = self._responses(output)
        if output.finish is not None:
            self._finish = output.finish
            if self._job.constraint is None:
                self._unsent = responses
                return None
        return self._send(responses) if responses else None

    def _responses(self, output: EngineOutput) -> tuple[_Response, ...]:
        if self._job.constraint is not None:
            self._text.append(output.continued_text + output.text)
        has_content = output.token_ids or output.text
        if self._is_started:
            return (self._delta(output),) if has_content else ()
        self._is_started = True
        return (self._started(), self._delta(output)) if has_content else (self._started(),)

    def _started(self) -> _Response:
        return _Response(
            started=generation_pb2.Started(
                response_id=self._request.response_id,
                model=self._model.name,
                prompt_token_count=len(self._job.prompt_token_ids),
                resume_token=self._request.resume_token,
            )
        )

    def _delta(self, output: EngineOutput) -> _Response:
        response = _Response()
        delta = response.delta  # built in place: a message that is passed to another one is copied
        delta.SetInParent()
        if output.text:
            delta.text.append(output.text)
        if self._includes_token_ids:
            delta.token_ids.extend(output.token_ids)
        if output.logprobs:
            delta.logprobs.extend(map(_logprob, output.logprobs))
        if output.prompt_logprobs:
            delta.prompt_logprobs.extend(map(_logprob, output.prompt_logprobs))
        return response

    async def _finished(self, reservation: Reservation, deadline: Deadline) -> generation_pb2.Finished:
        finish = self._finish
        if finish is None:
            raise EngineError("the engine ended a generation without its finish")
        is_budget = finish.reason is FinishReason.LENGTH and self._request.is_budget_clamped
        prompt_tokens = len(self._job.prompt_token_ids)
        tokens = reservation.prompt_tokens + reservation.output_tokens
        finished = generation_pb2.Finished(
            reason=generation_pb2.FINISH_REASON_BUDGET if is_budget else _REASONS[finish.reason],
            usage=generation_pb2.Usage(
                prompt_token_count=prompt_tokens,
                cached_prompt_token_count=min(prompt_tokens, finish.cached_prompt_tokens),
                output_token_count=tokens - prompt_tokens,
                # The last token was made, but never computed on.
                kv_block_count=self._model.ledger.blocks_for(max(reservation.prompt_tokens, tokens - 1)),
            ),
            constraint_verdict=await self._verdict(finish, deadline),
            continuation_count=self._request.continuation_count,
        )
        if finish.stop_string is not None:
            finished.stop_string = finish.stop_string
        elif finish.stop_token_id is not None:
            finished.stop_token_id = finish.stop_token_id
        timing = finished.timing
        timing.queue_duration.FromNanoseconds(round(finish.queue_s * 1e9))
        timing.prefill_duration.FromNanoseconds(round(finish.prefill_s * 1e9))
        timing.decode_duration.FromNanoseconds(round(finish.decode_s * 1e9))
        return finished

    async def _verdict(self, finish: EngineFinish, deadline: Deadline) -> generation_pb2.ConstraintVerdict.ValueType:
        constraint = self._job.constraint
        if constraint is None:
            return generation_pb2.CONSTRAINT_VERDICT_UNSPECIFIED
        if await deadline.wait(self._model.constraints.verdict(constraint, "".join(self._text))):
            return generation_pb2.CONSTRAINT_VERDICT_SATISFIED
        if finish.reason is FinishReason.STOP:
            raise ConstraintViolatedError(f"the output does not have the form asked for ({constraint.kind.value})")
        return generation_pb2.CONSTRAINT_VERDICT_INCOMPLETE


def _logprob(logprob: TokenLogprob) -> generation_pb2.TokenLogprob:
    return generation_pb2.TokenLogprob(
        token_id=logprob.token_id,
        token=logprob.token,
        logprob=logprob.logprob,
        top=[
            generation_pb2.TopLogprob(token_id=token_id, token=token, logprob=value)
            for token_id, token, value in logprob.top
        ],
    )
