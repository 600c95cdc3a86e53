"""The way of a job into vLLM's engine process.

Part of the engine (worker/vllm_engine.py), which imports it after it has set vLLM's environment.
``AsyncLLM.add_request`` validates, copies and completes a request for all that a request may be, and draws an id for
it: most of what it costs until it leaves for the engine's process, whose GPU may be idle meanwhile. A plain job, whose
id is its own, becomes at once what vLLM would make of it. Everything else goes vLLM's way, and so does what vLLM would
refuse; the worker has refused it before (worker/job.py), but a request that ends the engine ends all others.

vLLM promises none of this (ADR 24). tests/integration/test_vllm_submission.py holds it against vLLM's own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from vllm.inputs import TokensPrompt, tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError

from worker.engine import EngineFacts, GenerationJob
from worker.vllm_request import constraint_arguments, sampling_arguments
from worker.vllm_steps import Reader, StepProcessor


class Submission:
    """One engine's. ``steps`` hands a reader what the engine makes of its job."""

    def __init__(self, engine: AsyncLLM, steps: StepProcessor, facts: EngineFacts) -> None:
        self._engine = engine
        self._steps = steps
        self._facts = facts
        # vLLM has the tokenizer look it up in each request, for as long as all the rest of a plain one takes.
        self._end_token_id: int | None = engine.input_processor.renderer.get_eos_token_id()

    async def submit(self, reader: Reader, params: SamplingParams) -> None:
        """Give ``reader``'s job to the engine.

        Raises vLLM's ``EngineDeadError``, and ``VLLMError`` or ``ValueError`` for what vLLM refuses.
        """
        job, engine = reader.job, self._engine
        token_ids = [*job.computed_token_ids]
        self._steps.expect(reader)
        if _is_ready(job, token_ids, self._facts):
            if engine.errored:
                raise VllmEngineDeadError
            engine._run_output_handler()  # noqa: SLF001 - begins with the first request
            request = self.plain_request(job.job_id, token_ids, params)
            self._steps.add_request(request, None)
            await engine.engine_core.add_request_async(request)
        else:
            # vLLM parses a constraint once more, in its thread pool if it is given a raw prompt, otherwise on our loop.
            prompt = tokens_input(token_ids) if job.constraint is None else TokensPrompt(prompt_token_ids=token_ids)
            await engine.add_request(job.job_id, prompt, params)
        self._steps.prepare(reader)  # the engine's process has its work by now

    def plain_request(self, job_id: str, token_ids: list[int], params: SamplingParams) -> EngineCoreRequest:
        """What vLLM's input processor makes of a plain job. Its id stands for both of vLLM's."""
        processor = self._engine.input_processor
        processor.apply_watermarking(params, processor.resolve_watermarking(params))
        params.update_from_generation_config(processor.generation_config_fields, self._end_token_id)
        return EngineCoreRequest(
            request_id=job_id,
            external_req_id=job_id,
            prompt_token_ids=token_ids,
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )


def _is_ready(job: GenerationJob, token_ids: Sequence[int], facts: EngineFacts) -> bool:
    """Whether vLLM would find nothing in it to prepare, and nothing to refuse."""
    return (
        job.constraint is None
        and job.logprobs is None
        and job.prompt_logprobs is None
        and not job.sampling.logit_bias
        and not job.sampling.stop_token_ids
        and 0 < len(token_ids) < facts.context_length
        and min(token_ids) >= 0
        and max(token_ids) < facts.vocabulary_size
    )


def sampling_params(job: GenerationJob, *, stop_strings: Sequence[str], seeds_by_position: bool) -> SamplingParams:
    """What vLLM is asked for. Raises ``ValueError`` for what it refuses."""
    return SamplingParams(
        **sampling_arguments(job, seeds_by_position=seeds_by_position),
        stop=list(stop_strings),
        output_kind=RequestOutputKind.DELTA,  # vLLM's default repeats all that came before
        structured_outputs=StructuredOutputsParams(**constraint_arguments(job.constraint)) if job.constraint else None,
        skip_clone=True,  # made for this one request
    )
