"""What the worker's metrics read from its parts, at the time when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tidegate import __version__
from tidegate.http2.limits import Abuse
from tidegate.native.choice import CHOICE
from tidegate.rpc.lifecycle import Lifecycle
from tidegate.telemetry import catalogue
from tidegate.telemetry.conventions import GEN_AI_REQUEST_MODEL, GEN_AI_TOKEN_TYPE, KIND, PHASE, RUNTIME, STATE
from tidegate.telemetry.loop_lag import LoopLag
from tidegate.telemetry.metrics import Metrics, Reading
from worker.engine import EngineDeadError, EngineLoad
from worker.model import ServedModel


def observe_process(metrics: Metrics, lifecycle: Lifecycle, lag: LoopLag) -> None:
    """Show how the process is; before there is a model, too."""
    metrics.observe(catalogue.DRAINING, lambda: [(float(lifecycle.is_draining), {})])
    metrics.observe(catalogue.LOOP_LAG, lambda: [(lag.longest_s, {})])


def observe_edge(metrics: Metrics, abuse: Mapping[Abuse, int]) -> None:
    """Show what peers of the HTTP/2 edge did that they may not."""
    metrics.observe(catalogue.EDGE_ABUSE, lambda: [(abuse.get(kind, 0), {KIND: kind.value}) for kind in Abuse])


def observe_model(metrics: Metrics, model: ServedModel) -> None:
    """Show the KV cache, the ledger and the engine. Once, when the model serves."""
    ledger, pace, facts = model.ledger, model.pace, model.facts

    def of_load(read: Callable[[EngineLoad], Iterator[Reading]]) -> Callable[[], list[Reading]]:
        def readings() -> list[Reading]:
            try:
                return list(read(model.engine.load()))
            except EngineDeadError:  # it has no load any more, and the process is about to end
                return []

        return readings

    def blocks(load: EngineLoad) -> Iterator[Reading]:
        yield facts.total_blocks, {STATE: "total"}
        yield load.free_blocks, {STATE: "free"}
        yield ledger.reserved_blocks, {STATE: "reserved"}
        yield ledger.outgrown_blocks, {STATE: "outgrown"}
        yield load.reclaimable_blocks, {STATE: "reclaimable"}

    def utilization(load: EngineLoad) -> Iterator[Reading]:
        taken = max(facts.total_blocks - load.free_blocks, ledger.reserved_blocks)
        yield min(1.0, taken / facts.total_blocks), {}

    def requests(load: EngineLoad) -> Iterator[Reading]:
        yield load.running_requests, {STATE: "running"}
        yield load.waiting_requests, {STATE: "waiting"}

    def tokens(load: EngineLoad) -> Iterator[Reading]:
        yield load.prompt_tokens_computed, {GEN_AI_TOKEN_TYPE: "input"}
        yield load.output_tokens_generated, {GEN_AI_TOKEN_TYPE: "output"}

    metrics.observe(catalogue.KV_BLOCKS, of_load(blocks))
    metrics.observe(catalogue.KV_UTILIZATION, of_load(utilization))
    metrics.observe(catalogue.KV_BLOCK_SIZE, lambda: [(facts.block_size, {})])
    metrics.observe(catalogue.ENGINE_REQUESTS, of_load(requests))
    metrics.observe(catalogue.ENGINE_TOKENS, of_load(tokens))
    metrics.observe(catalogue.ENGINE_STEPS, of_load(lambda load: iter([(load.step_count, {})])))
    metrics.observe(catalogue.ENGINE_PREEMPTIONS, of_load(lambda load: iter([(load.preemptions, {})])))
    metrics.observe(catalogue.ENGINE_STEP_AGE, of_load(lambda _: iter([(pace.step_age_s, {})])))
    metrics.observe(
        catalogue.ENGINE_RATE,
        lambda: [(pace.prefill_tokens_per_s, {PHASE: "prefill"}), (pace.decode_tokens_per_s, {PHASE: "decode"})],
    )
    metrics.observe(catalogue.LEDGER_REQUESTS, lambda: [(ledger.requests, {})])
    metrics.observe(catalogue.LEDGER_REFUSALS, lambda: [(ledger.refusals, {})])
    metrics.observe(catalogue.PENDING_PREFILL, lambda: [(ledger.pending_prefill_tokens, {})])
    about = {
        "service.version": __version__,
        RUNTIME: CHOICE.runtime,
        "tidegate.engine": facts.name,
        GEN_AI_REQUEST_MODEL: model.name,
    }
    metrics.observe(catalogue.INFO, lambda: [(1, about)])
