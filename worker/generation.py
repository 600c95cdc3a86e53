"""One generation, from its admission to its end: engine outputs in, public responses out.

The ledger's reservation and the engine's job live exactly as long as ``Generation.run`` does: however it ends, by the
last token, an error, the deadline or a cancelled call, both are given back in its one ``finally``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.worker.v1 import worker_service_pb2
from worker.deadline import Deadline
from worker.engine import EngineFinish, EngineOutput, FinishReason, GenerationJob, TokenLogprob
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


class Generation:
    """Runs once."""

    def __init__(self, model: ServedModel, job: GenerationJob, request: worker_service_pb2.GenerateRequest) -> None:
        """``job`` is what ``request`` asks the engine for; the rest of it is answered here."""
        self._model = model
        self._job = job
        self._request = request
        self._includes_token_ids = request.output.include_token_ids
        self._text: list[str] = []  # kept only to be checked against the constraint

    async def run(
        self, deadline_at: float | None, *, on_admitted: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[_Response]:
        """Admit the job and stream it. ``deadline_at`` is in the event loop's time; ``on_admitted`` comes in between.

        Raises ``AtCapacityError``, ``ConstraintRejectedError``, ``ConstraintViolatedError``, ``DeadlineExceededError``
        and what the engine raises.
        """
        with Deadline(deadline_at) as deadline:
            model, job = self._model, self._job
            record = model.records.begin(prompt_tokens=len(job.prompt_token_ids))
            if job.constraint is not None:
                await deadline.wait(model.constraints.check(job.constraint))
            had_work = model.pace.has_work
            names = shareable_names(job.computed_token_ids, model.facts.block_size)
            reservation = model.ledger.admit(
                tenant=self._request.tenant,
                # What was generated elsewhere is to this engine a longer prompt.
                prompt_tokens=len(job.computed_token_ids),
                max_output_tokens=max(1, job.sampling.max_output_tokens - job.continued_tokens),
                prompt_names=names,
            )
            record.reserved_tokens = model.ledger.reserved_output_tokens(reservation)
            is_complete = False
            try:
                model.pace.give_work(had_work=had_work)
                model.load_feed.changed()
                if on_admitted is not None:
                    await on_admitted()
                async with aclosing(model.engine.generate(job)) as outputs:
                    is_started = self._request.is_started
                    while not is_complete:
                        output = await deadline.wait(anext(outputs))
                        record.output(len(output.token_ids), output.finish)
                        model.ledger.begin(reservation, cached_tokens=output.cached_prompt_tokens)
                        if output.token_ids:
                            model.ledger.extend(reservation, len(output.token_ids))
                        if not is_started:
                            is_started = True
                            model.prefetcher.note(job.computed_token_ids, names)
                            yield self._started()
                        if job.constraint is not None:
                            self._text.append(output.continued_text + output.text)
                        if output.token_ids or output.text:
                            yield self._delta(output)
                        if output.finish is not None:
                            finished = await self._finished(output.finish, reservation, deadline)
                            is_complete = True
                            yield finished
            finally:
                # Part of an output teaches nothing about whole ones.
                model.ledger.release(reservation, is_complete=is_complete and job.continued is None)
                model.load_feed.changed()
                record.end(sys.exception())

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

    async def _finished(self, finish: EngineFinish, reservation: Reservation, deadline: Deadline) -> _Response:
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
        return _Response(finished=finished)

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
