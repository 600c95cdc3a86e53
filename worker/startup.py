"""From a directory to a model that serves: open the checkpoint, start the engine, warm it up, open the books."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tidegate.telemetry.setup import Telemetry
from tidegate.worker.v1.worker_service_pb2 import GenerateRequest
from worker.books import AdmissionSettings, Books
from worker.checkpoint import Checkpoint, open_checkpoint
from worker.config import WorkerSettings
from worker.constraints import ConstraintChecker
from worker.engine import Engine, EngineFacts, GenerationJob, Sampling
from worker.generation import Generation
from worker.hot_prefixes import HotPrefixes
from worker.ledger import Ledger
from worker.load import LoadFeed
from worker.model import ServedModel
from worker.prefetch import Prefetcher
from worker.prefix_file import read_prefix_file
from worker.records import Records

_LOGGER = logging.getLogger(__name__)

_SIM_MODEL = Path(__file__).parent / "sim_model"
_SIM_MODEL_NAME = "sim"

_WARM_UP_TENANT = "warm-up"  # lest it teaches the ledger anything about real ones
_WARM_UP_PROMPT_TOKENS, _WARM_UP_OUTPUT_TOKENS = 512, 8


async def read_checkpoint(settings: WorkerSettings) -> Checkpoint:
    """The checkpoint to serve. Raises ``CheckpointError``, and ``ValueError`` when none is named and one is needed."""
    if settings.model_dir is None and settings.engine == "vllm":
        raise ValueError("the engine vllm needs a model_dir")
    return await asyncio.to_thread(open_checkpoint, settings.model_dir or _SIM_MODEL)


async def start_model(
    settings: WorkerSettings,
    checkpoint: Checkpoint,
    engine: Engine,
    *,
    telemetry: Telemetry,
    is_draining: Callable[[], bool],
) -> ServedModel:
    """Start ``engine`` and return it ready to serve. Raises ``EngineDeadError`` or ``EngineError``."""
    facts = await engine.start()
    _LOGGER.info("engine %s is up; warming it up", facts.name)
    # Kernels are chosen and compiled in this generation. The next one is the first to be measured.
    await engine.generate(_warm_up_job(facts, first_token=0), lambda _: None)
    books = Books(
        facts,
        engine.load,
        AdmissionSettings(
            output_quantile=settings.output_quantile,
            max_waiting_requests=settings.max_waiting_requests,
            max_prefill_backlog_s=settings.max_prefill_backlog_s,
        ),
    )
    load_feed = LoadFeed(books.ledger, books.pace, engine.load, is_draining)

    def after_step() -> None:
        books.after_step()
        load_feed.changed()

    prefetcher = _prefetcher(settings, checkpoint, engine, facts, books.ledger)
    constraints = ConstraintChecker(checkpoint.directory, facts.vocabulary_size)
    if facts.constraint_kinds:
        constraints.start()
    engine.on_step(after_step)
    name = settings.model_name or (_name_of(checkpoint.directory) if settings.model_dir else _SIM_MODEL_NAME)
    model = ServedModel(
        name=name,
        default_max_output_tokens=settings.default_max_output_tokens,
        checkpoint=checkpoint,
        engine=engine,
        facts=facts,
        constraints=constraints,
        ledger=books.ledger,
        pace=books.pace,
        load_feed=load_feed,
        prefetcher=prefetcher,
    )
    request = GenerateRequest(tenant=_WARM_UP_TENANT)
    await Generation(model, _warm_up_job(facts, first_token=1), request, lambda _: None).run(None)
    await prefetcher.prefill_all()
    return replace(model, records=Records(telemetry, model=name))  # of what comes after the warm-up


def _name_of(directory: Path) -> str:
    """A link's own name, where there is one: "." has none."""
    return directory.name if directory.name not in ("", "..") else directory.resolve().name


def _prefetcher(
    settings: WorkerSettings, checkpoint: Checkpoint, engine: Engine, facts: EngineFacts, ledger: Ledger
) -> Prefetcher:
    prefixes = HotPrefixes(
        block_size=facts.block_size,
        total_blocks=facts.total_blocks,
        max_blocks=math.floor(facts.total_blocks * settings.prefetch_share),
    )
    if settings.prefix_file is not None:
        for token_ids in read_prefix_file(settings.prefix_file, checkpoint.tokenizer_json):
            prefixes.give(token_ids[: facts.context_length - 2])
    return Prefetcher(engine, facts, ledger, prefixes)


def _warm_up_job(facts: EngineFacts, *, first_token: int) -> GenerationJob:
    """A few tokens to generate. Another ``first_token`` makes a prompt that no prefix cache knows."""
    room = min(facts.context_length, facts.kv_pool_tokens) - _WARM_UP_OUTPUT_TOKENS
    prompt = [(first_token + index) % facts.vocabulary_size for index in range(min(_WARM_UP_PROMPT_TOKENS, room))]
    return GenerationJob(
        job_id=f"warm-up-{first_token}",
        prompt_token_ids=prompt,
        sampling=Sampling(max_output_tokens=_WARM_UP_OUTPUT_TOKENS, min_output_tokens=_WARM_UP_OUTPUT_TOKENS),
    )
