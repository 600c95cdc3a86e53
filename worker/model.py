"""The model that a worker serves: everything that is fixed, or begins, once its engine has started."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

from tidegate.inference.v1 import model_pb2
from tidegate.telemetry.setup import Telemetry
from tidegate.worker.v1 import worker_service_pb2
from worker.checkpoint import Checkpoint
from worker.constraints import ConstraintChecker
from worker.engine import ConstraintKind, Engine, EngineFacts
from worker.ledger import Ledger
from worker.load import LoadFeed
from worker.manifest import PromptHistogram
from worker.pace import Pace
from worker.prefetch import Prefetcher
from worker.records import Records

_KINDS = {
    ConstraintKind.JSON_SCHEMA: model_pb2.CONSTRAINT_KIND_JSON_SCHEMA,
    ConstraintKind.REGEX: model_pb2.CONSTRAINT_KIND_REGEX,
    ConstraintKind.CHOICE: model_pb2.CONSTRAINT_KIND_CHOICE,
    ConstraintKind.GRAMMAR: model_pb2.CONSTRAINT_KIND_GRAMMAR,
    ConstraintKind.JSON_OBJECT: model_pb2.CONSTRAINT_KIND_JSON_OBJECT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A running engine with its checkpoint and its books. ``default_max_output_tokens``: see ``ModelLimits``."""

    name: str
    default_max_output_tokens: int
    checkpoint: Checkpoint
    engine: Engine
    facts: EngineFacts
    constraints: ConstraintChecker
    ledger: Ledger
    pace: Pace
    load_feed: LoadFeed
    prefetcher: Prefetcher
    records: Records = field(default_factory=lambda: Records(Telemetry.silent(), model=""))

    def describe(self) -> worker_service_pb2.GetModelResponse:
        """What a gateway has to know of it."""
        facts, checkpoint = self.facts, self.checkpoint
        max_output_tokens = min(facts.context_length, facts.kv_pool_tokens) - 1  # a prompt has at least one token
        return worker_service_pb2.GetModelResponse(
            model=model_pb2.Model(
                name=self.name,
                limits=model_pb2.ModelLimits(
                    context_length=facts.context_length,
                    max_output_tokens=max_output_tokens,
                    default_max_output_tokens=min(self.default_max_output_tokens, max_output_tokens),
                    vocabulary_size=facts.vocabulary_size,
                    kv_pool_token_count=facts.kv_pool_tokens,
                ),
                digests=model_pb2.ModelDigests(
                    checkpoint_sha256=checkpoint.checkpoint_sha256,
                    tokenizer_sha256=checkpoint.tokenizer_sha256,
                    chat_template_sha256=checkpoint.chat_template_sha256,
                ),
                capabilities=model_pb2.ModelCapabilities(
                    chat=bool(checkpoint.chat_template),
                    seed=facts.supports_seed,
                    constraint_kinds=[_KINDS[kind] for kind in facts.constraint_kinds],
                ),
            ),
            canaries=checkpoint.canaries,
            sampling_defaults=checkpoint.sampling_defaults,
            block_size=facts.block_size,
            engine=facts.name,
            calibration=_prompt_histogram(checkpoint.calibration),
            supports_continuation=facts.supports_continuation,
        )


def _prompt_histogram(histogram: PromptHistogram | None) -> worker_service_pb2.PromptHistogram | None:
    if histogram is None:
        return None
    return worker_service_pb2.PromptHistogram(
        prompt_token_edges=histogram.prompt_token_edges,
        turn_edges=histogram.turn_edges,
        counts=chain.from_iterable(histogram.counts),
    )
