"""vLLM's output processor with the requests' queues taken out: what a step has made goes straight to its takers.

Part of the engine (worker/vllm_engine.py), which imports it after it has set vLLM's environment. vLLM's own processor
makes two objects of each token and wakes a task, which wakes the next one; here a token is decoded, by vLLM's own
decoder, and handed over. What vLLM keeps of a request, its statistics and its ends are vLLM's still.

vLLM promises none of this (ADR 16). tests/contract/test_vllm_steps.py holds it against vLLM's own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from vllm.v1.engine import FinishReason
from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError
from vllm.v1.engine.output_processor import OutputProcessor, OutputProcessorOutput

from worker.bounded_text import BoundedStream
from worker.engine import EngineDeadError, EngineError, EngineOutput, GenerationJob
from worker.output_port import OutputPort
from worker.vllm_output import engine_finish, engine_output

_LOGGER = logging.getLogger(__name__)

# Spaces and characters may lie across a token's border, and not much farther.
_CONTEXT_TOKENS = 32


class Cleaner(Protocol):
    """Changes what vLLM says before it is taken, and may end the generation."""

    def clean(self, output: EngineOutput) -> EngineOutput:
        """``output`` as it should have been."""


class Reader:
    """Stands where vLLM keeps a request's queue."""

    __slots__ = ("_cleaner", "decode", "job", "port", "request_id")

    def __init__(self, job: GenerationJob, port: OutputPort, cleaner: Cleaner | None) -> None:
        self.job = job
        self.port = port
        self.request_id = ""  # vLLM's own, once it has the request
        # What a token adds to the text, where it is all that there is to say: no stop string to look for, no logprobs.
        self.decode: Callable[[int], str] | None = None
        self._cleaner = cleaner

    @property
    def is_cleaned(self) -> bool:
        """Whether what vLLM says is looked at once more, and has to be exactly what it would say."""
        return self._cleaner is not None

    @property
    def is_plain(self) -> bool:
        """Whether the job asks for its text alone."""
        return self.job.logprobs is None and self.job.prompt_logprobs is None

    def put(self, output: Any) -> None:
        """By this vLLM tells of an error, and of the end of a request that was aborted."""
        if isinstance(output, VllmEngineDeadError):
            self.port.fail(EngineDeadError(str(output)))
        elif isinstance(output, Exception):  # vLLM reads no more outputs after it
            self.port.fail(EngineDeadError(f"vLLM failed: {output!r}"))
        else:
            self.port.fail(EngineError("vLLM has aborted the request"))

    def give(self, output: EngineOutput) -> bool:
        """Hand over; returns whether the generation is at its end."""
        if self._cleaner is not None:
            output = self._cleaner.clean(output)
        self.port.put(output)
        return output.finish is not None


class StepProcessor(OutputProcessor):  # type: ignore[misc] # vLLM is untyped here
    """Takes the place of an AsyncLLM's output processor, before its first request."""

    def __init__(self, replaced: OutputProcessor) -> None:
        super().__init__(
            replaced.tokenizer,
            log_stats=replaced.log_stats,
            stream_interval=replaced.stream_interval,
            tracing_enabled=replaced.tracing_enabled,
            admission_stats=replaced.admission_stats,
        )
        self._expected: dict[str, Reader] = {}

    def expect(self, reader: Reader) -> None:
        """The job is about to be given to vLLM, under its own id."""
        self._expected[reader.job.job_id] = reader

    def forget(self, reader: Reader) -> bool:
        """The job is over for us; returns whether vLLM still has it."""
        self._expected.pop(reader.job.job_id, None)
        return reader.request_id in self.request_states

    def prepare(self, reader: Reader) -> None:
        """Have the job's tokens decoded the short way, where there is one; once vLLM has the job."""
        state = self.request_states.get(reader.request_id)
        if state is None or not state.is_prefilling:  # over, or its decoder is at work
            return
        detokenizer = state.detokenizer
        if not isinstance(detokenizer, FastIncrementalDetokenizer):
            return
        if not reader.is_cleaned and (tail := _context(detokenizer.tokenizer, state.prompt_token_ids)):
            detokenizer.stream = DecodeStream(ids=tail, skip_special_tokens=detokenizer.skip_special_tokens)
        detokenizer.stream = BoundedStream(detokenizer.stream)
        if reader.is_plain and not detokenizer.stop:
            reader.decode = detokenizer.decode_next

    # vLLM's.

    def add_request(
        self, request: Any, prompt: str | None, parent_req: Any = None, request_index: int = 0, queue: Any = None
    ) -> None:
        """With our reader in place of ``queue``."""
        del queue
        reader = self._expected.pop(request.external_req_id)
        reader.request_id = request.request_id
        super().add_request(request, prompt, parent_req, request_index, reader)

    def process_outputs(
        self,
        engine_core_outputs: Sequence[Any],
        engine_core_timestamp: float | None = None,
        iteration_stats: Any = None,
        weight_version: str | None = None,
    ) -> Any:
        """What one step has made."""
        del weight_version
        states = self.request_states
        ended_by_us: list[str] = []
        for output in engine_core_outputs:
            state = states.get(output.request_id)
            if state is None:  # aborted meanwhile
                continue
            self._count(state, output, engine_core_timestamp, iteration_stats)
            try:
                reason = self._give(state, output)
            except Exception as error:  # one request's trouble must not end vLLM's loop, and with it every stream
                _LOGGER.exception("an output of %s cannot be read", state.external_req_id)
                state.queue.port.fail(EngineError(f"the output cannot be read: {error!r}"))
                reason = FinishReason.ERROR
            if reason is not None:
                self._finish_request(state)
                if not output.finished:
                    ended_by_us.append(state.request_id)
                self._update_stats_from_finished(state, reason, iteration_stats)
        return OutputProcessorOutput(request_outputs=[], reqs_to_abort=ended_by_us)

    def _count(self, state: Any, output: Any, timestamp: float | None, iteration_stats: Any) -> None:
        """As vLLM does, and by vLLM itself where there is more to count than a token."""
        if iteration_stats is None:
            return
        stats = state.stats
        if state.is_prefilling or output.events is not None or output.num_nans_in_logits:
            self._update_stats_from_output(state, output, timestamp, iteration_stats)
            return
        count = len(output.new_token_ids)
        iteration_stats.num_generation_tokens += count
        stats.num_generation_tokens += count
        iteration_stats.inter_token_latencies_iter.append(timestamp - stats.last_token_ts)
        stats.last_token_ts = timestamp

    def _give(self, state: Any, output: Any) -> Any:
        """Returns vLLM's reason why the request is over, or None."""
        if state.is_prefilling:
            if output.prefill_stats is not None:
                state.num_cached_tokens = output.prefill_stats.num_cached_tokens
            state.is_prefilling = False
        reader: Reader = state.queue
        decode, token_ids = reader.decode, output.new_token_ids
        if decode is None or output.finish_reason is not None:
            return self._give_whole(state, output)
        text = decode(token_ids[0]) if len(token_ids) == 1 else "".join(map(decode, token_ids))
        is_over = reader.give(
            EngineOutput(token_ids=token_ids, text=text, cached_prompt_tokens=state.num_cached_tokens)
        )
        return FinishReason.STOP if is_over else None

    def _give_whole(self, state: Any, output: Any) -> Any:
        """An output that ends the request, or may; or that comes with more than a text."""
        reader: Reader = state.queue
        reason, stopped_by = output.finish_reason, output.stop_reason
        if reader.decode is not None:
            shown = output.new_token_ids[:-1] if reason is FinishReason.STOP else output.new_token_ids
            text = "".join(map(reader.decode, shown))
        else:
            detokenizer = state.detokenizer
            tokens_before = detokenizer.num_output_tokens()
            stop_string = detokenizer.update(output.new_token_ids, reason is FinishReason.STOP)
            if stop_string:
                reason, stopped_by = FinishReason.STOP, stop_string
                self._trim_surplus_tokens(state, output, tokens_before)
            text = detokenizer.get_next_output_text(finished=reason is not None, delta=True)
        token_ids, logprobs = output.new_token_ids, state.logprobs_processor
        logprobs.update_from_output(output)
        whole = engine_output(
            reader.job,
            token_ids=token_ids,
            text=text,
            logprobs=(logprobs.logprobs or ())[-len(token_ids) :] if token_ids else (),
            prompt_logprobs=logprobs.pop_prompt_logprobs() or (),
            cached_prompt_tokens=state.num_cached_tokens,
            finish=None
            if reason is None
            else engine_finish(str(reason), stopped_by, state.stats, cached_prompt_tokens=state.num_cached_tokens),
        )
        return FinishReason.STOP if reader.give(whole) and reason is None else reason


def _context(tokenizer: Tokenizer, prompt_token_ids: Sequence[int]) -> list[int]:
    """The end of a prompt, which a decoder has to know; empty where all of it is needed.

    vLLM has the decoder read the prompt from its beginning, at the first token and on the event loop: half a
    millisecond for a thousand tokens, in which no stream moves.
    """
    tail = list(prompt_token_ids[-_CONTEXT_TOKENS:])
    # Of special tokens alone there is no text, and a decoder would take the output for the beginning of one.
    return tail if tokenizer.decode(tail) else []
