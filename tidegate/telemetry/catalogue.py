"""All metrics of gateway and worker: docs/telemetry.md is made from them, dashboards and alerts are checked by them."""

from __future__ import annotations

from tidegate.telemetry import conventions as names
from tidegate.telemetry.metric import Kind, Metric

_OPERATION = (names.GEN_AI_OPERATION_NAME, names.GEN_AI_PROVIDER_NAME, names.GEN_AI_REQUEST_MODEL)

# Of both services

RPC_DURATION = Metric(
    name=names.RPC_SERVER_CALL_DURATION,
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Calls served, from their arrival to their last message.",
    attributes=(names.RPC_SYSTEM_NAME, names.RPC_METHOD, names.RPC_RESPONSE_STATUS_CODE, names.ERROR_TYPE),
    buckets=names.RPC_DURATION_BUCKETS,
)
LOOP_LAG = Metric(
    name="tidegate.event_loop.lag",
    kind=Kind.OBSERVED_GAUGE,
    unit="s",
    description="Longest time by which the event loop was late for a timer, of the last 15 seconds. Above 0.1 s the"
    " process has too much to do.",
)
INFO = Metric(
    name="tidegate.build.info",
    kind=Kind.OBSERVED_GAUGE,
    unit="{info}",
    description="Always 1; says what runs.",
    attributes=("service.version", names.RUNTIME, "tidegate.engine", names.GEN_AI_REQUEST_MODEL),
)
DRAINING = Metric(
    name="tidegate.draining",
    kind=Kind.OBSERVED_GAUGE,
    unit="{process}",
    description="1 once the process is shutting down.",
)
TRACE_SPANS = Metric(
    name="tidegate.trace.spans",
    kind=Kind.OBSERVED_COUNTER,
    unit="{span}",
    description="Spans by what became of them: sent; failed, since the collector did not take them or they"
    " could not be written; dropped, since too many wait for it. Of a call that comes then nothing is recorded, and it"
    " counts as one. Only where calls are traced.",
    attributes=(names.OUTCOME,),
)
OPEN_SPANS = Metric(
    name="tidegate.trace.open_spans",
    kind=Kind.OBSERVED_GAUGE,
    unit="{span}",
    description="Spans that have begun and not ended. Only where calls are traced.",
)
EDGE_ABUSE = Metric(
    name="tidegate.http2.abuse",
    kind=Kind.OBSERVED_COUNTER,
    unit="{violation}",
    description="Limits of the HTTP/2 edge that peers broke; each one ended a stream or a connection.",
    attributes=(names.KIND,),
)

# Of the gateway

OPERATION_DURATION = Metric(
    name=names.GEN_AI_CLIENT_OPERATION_DURATION,
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Generations as clients see them: waiting, all attempts, and the stream to its end.",
    attributes=(*_OPERATION, names.ERROR_TYPE),
    buckets=names.GEN_AI_CLIENT_DURATION_BUCKETS,
)
TIME_TO_FIRST_CHUNK = Metric(
    name=names.GEN_AI_CLIENT_TIME_TO_FIRST_CHUNK,
    kind=Kind.HISTOGRAM,
    unit="s",
    description="From a generation's arrival at the gateway to its first token: validation, queue, routing, prefill.",
    attributes=(*_OPERATION, names.CRITICALITY),
    buckets=names.GEN_AI_TIME_TO_FIRST_BUCKETS,
)
TIME_PER_OUTPUT_CHUNK = Metric(
    name=names.GEN_AI_CLIENT_TIME_PER_OUTPUT_CHUNK,
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Mean time between the output tokens of one generation, the first excluded; one value a generation.",
    attributes=_OPERATION,
    buckets=names.GEN_AI_TIME_PER_OUTPUT_BUCKETS,
)
TOKEN_USAGE = Metric(
    name=names.GEN_AI_CLIENT_TOKEN_USAGE,
    kind=Kind.HISTOGRAM,
    unit="{token}",
    description="Tokens of finished generations.",
    attributes=(*_OPERATION, names.GEN_AI_TOKEN_TYPE),
    buckets=names.GEN_AI_TOKEN_BUCKETS,
)
CALLS_IN_FLIGHT = Metric(
    name="tidegate.calls.in_flight",
    kind=Kind.OBSERVED_GAUGE,
    unit="{call}",
    description="Calls that this gateway holds.",
)
CALLS_LIMIT = Metric(
    name="tidegate.calls.limit",
    kind=Kind.OBSERVED_GAUGE,
    unit="{call}",
    description="Calls that this gateway holds at most (setting max_in_flight).",
)
READERS_BEHIND = Metric(
    name="tidegate.readers.behind",
    kind=Kind.OBSERVED_GAUGE,
    unit="{call}",
    description="Calls whose clients have not read all that this gateway has for them. Not under --data-plane grpc.",
)
READERS_HELD = Metric(
    name="tidegate.readers.held",
    kind=Kind.OBSERVED_GAUGE,
    unit="By",
    description="Bytes held for clients that have not read them. Those that read nothing for too long end with"
    " CLIENT_TOO_SLOW. Not under --data-plane grpc.",
)
REFUSALS = Metric(
    name="tidegate.refusals",
    kind=Kind.COUNTER,
    unit="{call}",
    description="Generations that ended with an error, by its reason (docs/errors.md), by tenant and by criticality."
    " The tenants beyond the first 100 are counted together as other.",
    attributes=(names.ERROR_TYPE, names.TENANT, names.CRITICALITY),
)
RETRY_AFTER = Metric(
    name="tidegate.refusals.retry_after",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="When those that were refused were told to come back (RetryInfo), by tenant as in the refusals.",
    attributes=(names.TENANT,),
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
ATTEMPTS = Metric(
    name="tidegate.attempts",
    kind=Kind.COUNTER,
    unit="{attempt}",
    description="Attempts at workers, by how they ended.",
    attributes=(names.SERVER_ADDRESS, names.OUTCOME, names.ERROR_TYPE),
)
CONTINUATIONS = Metric(
    name="tidegate.continuations",
    kind=Kind.COUNTER,
    unit="{stream}",
    description="Streams that lost their worker after the first token and went on elsewhere.",
)
QUEUE_REQUESTS = Metric(
    name="tidegate.queue.requests",
    kind=Kind.OBSERVED_GAUGE,
    unit="{call}",
    description="Generations in the waiting room. The tenants beyond the first 100 stand together as other.",
    attributes=(names.CRITICALITY, names.TENANT),
)
QUEUE_WAIT = Metric(
    name="tidegate.queue.wait",
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Time that generations spent waiting for a worker with room; those refused at once count with 0.",
    attributes=(names.CRITICALITY, names.OUTCOME),
    buckets=names.GEN_AI_TIME_TO_FIRST_BUCKETS,
)
WORKERS = Metric(
    name="tidegate.workers",
    kind=Kind.OBSERVED_GAUGE,
    unit="{worker}",
    description="Workers by what this gateway makes of them: serving, draining, away (no proven connection).",
    attributes=(names.STATE,),
)
WORKER_BLOCKS = Metric(
    name="tidegate.worker.kv.blocks",
    kind=Kind.OBSERVED_GAUGE,
    unit="{block}",
    description="A worker's KV cache as last reported to this gateway: total, free, reserved, reclaimable, and unseen"
    " (sent there since the report).",
    attributes=(names.SERVER_ADDRESS, names.STATE),
)
WORKER_REQUESTS = Metric(
    name="tidegate.worker.requests",
    kind=Kind.OBSERVED_GAUGE,
    unit="{call}",
    description="Requests on a worker: running (its own figure), in_flight (from this gateway).",
    attributes=(names.SERVER_ADDRESS, names.STATE),
)
WORKER_LOAD_AGE = Metric(
    name="tidegate.worker.load_age",
    kind=Kind.OBSERVED_GAUGE,
    unit="s",
    description="Age of a worker's last load report. Workers report at least once a second.",
    attributes=(names.SERVER_ADDRESS,),
)
BREAKER = Metric(
    name="tidegate.worker.breaker",
    kind=Kind.OBSERVED_GAUGE,
    unit="{breaker}",
    description="1 for the state in which a worker's circuit breaker is, 0 for the others.",
    attributes=(names.SERVER_ADDRESS, names.PHASE, names.STATE),
)

# Of the worker

REQUEST_DURATION = Metric(
    name=names.GEN_AI_SERVER_REQUEST_DURATION,
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Generations on this worker, from arrival to the last token.",
    attributes=(*_OPERATION, names.ERROR_TYPE),
    buckets=names.GEN_AI_CLIENT_DURATION_BUCKETS,
)
TIME_TO_FIRST_TOKEN = Metric(
    name=names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN,
    kind=Kind.HISTOGRAM,
    unit="s",
    description="From arrival on this worker to the first token.",
    attributes=_OPERATION,
    buckets=names.GEN_AI_TIME_TO_FIRST_BUCKETS,
)
TIME_PER_OUTPUT_TOKEN = Metric(
    name=names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN,
    kind=Kind.HISTOGRAM,
    unit="s",
    description="Mean time between the output tokens of one generation, the first excluded.",
    attributes=_OPERATION,
    buckets=names.GEN_AI_TIME_PER_OUTPUT_BUCKETS,
)
KV_BLOCKS = Metric(
    name="tidegate.kv.blocks",
    kind=Kind.OBSERVED_GAUGE,
    unit="{block}",
    description="KV cache blocks: total, free (held by no running request, the reclaimable ones included), reserved"
    " (promised to admitted requests, in use or not), outgrown (needed beyond the pool by requests that have outgrown"
    " their reservations), reclaimable (free, with a reusable prefix).",
    attributes=(names.STATE,),
)
KV_BLOCK_SIZE = Metric(
    name="tidegate.kv.block_size",
    kind=Kind.OBSERVED_GAUGE,
    unit="{token}",
    description="Tokens in a KV cache block.",
)
KV_UTILIZATION = Metric(
    name="tidegate.kv.utilization",
    kind=Kind.OBSERVED_GAUGE,
    unit="1",
    description="Share of the KV cache that is in use or promised. For an endpoint picker: KVCacheUtilization.",
)
ENGINE_REQUESTS = Metric(
    name="tidegate.engine.requests",
    kind=Kind.OBSERVED_GAUGE,
    unit="{request}",
    description="Requests in the engine: running, waiting. For an endpoint picker: TotalRunningRequests and"
    " TotalQueuedRequests.",
    attributes=(names.STATE,),
)
ENGINE_TOKENS = Metric(
    name="tidegate.engine.tokens",
    kind=Kind.OBSERVED_COUNTER,
    unit="{token}",
    description="Tokens that the engine has computed (input) and generated (output).",
    attributes=(names.GEN_AI_TOKEN_TYPE,),
)
ENGINE_STEPS = Metric(
    name="tidegate.engine.steps",
    kind=Kind.OBSERVED_COUNTER,
    unit="{step}",
    description="Engine steps.",
)
ENGINE_STEP_AGE = Metric(
    name="tidegate.engine.step_age",
    kind=Kind.OBSERVED_GAUGE,
    unit="s",
    description="For how long the engine has had work without completing a step; 0 when it has none.",
)
ENGINE_PREEMPTIONS = Metric(
    name="tidegate.engine.preemptions",
    kind=Kind.OBSERVED_COUNTER,
    unit="{request}",
    description="Requests whose blocks the engine took back, to compute them again later.",
)
ENGINE_RATE = Metric(
    name="tidegate.engine.rate",
    kind=Kind.OBSERVED_GAUGE,
    unit="{token}/s",
    description="Measured pace while there is work: prefill, decode (of the whole batch).",
    attributes=(names.PHASE,),
)
PENDING_PREFILL = Metric(
    name="tidegate.engine.pending_prefill",
    kind=Kind.OBSERVED_GAUGE,
    unit="{token}",
    description="Prompt tokens admitted and not yet computed.",
)
CALIBRATION_DRIFT = Metric(
    name="tidegate.calibration.drift",
    kind=Kind.OBSERVED_GAUGE,
    unit="{index}",
    description="How far a model's prompts are from those its checkpoint was calibrated with, where both are known:"
    " population stability index, 0 where they are alike; above 0.25 calibrate again.",
    attributes=(names.GEN_AI_REQUEST_MODEL,),
)
LEDGER_REFUSALS = Metric(
    name="tidegate.ledger.refusals",
    kind=Kind.OBSERVED_COUNTER,
    unit="{request}",
    description="Requests that this worker refused for want of blocks; gateways ask another one.",
)
LEDGER_REQUESTS = Metric(
    name="tidegate.ledger.requests",
    kind=Kind.OBSERVED_GAUGE,
    unit="{request}",
    description="Requests that hold a reservation.",
)
RESERVATION_DRIFT = Metric(
    name="tidegate.ledger.drift",
    kind=Kind.HISTOGRAM,
    unit="1",
    description="Output tokens of a finished generation, divided by those reserved for it. The learned lengths are off"
    " when the median moves away from 1.",
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0),
)

GATEWAY: tuple[Metric, ...] = (
    *(OPERATION_DURATION, TIME_TO_FIRST_CHUNK, TIME_PER_OUTPUT_CHUNK, TOKEN_USAGE, RPC_DURATION),
    *(READERS_BEHIND, READERS_HELD),
    *(CALLS_IN_FLIGHT, CALLS_LIMIT, QUEUE_REQUESTS, QUEUE_WAIT, REFUSALS, RETRY_AFTER, ATTEMPTS, CONTINUATIONS),
    *(WORKERS, WORKER_BLOCKS, WORKER_REQUESTS, WORKER_LOAD_AGE, BREAKER, CALIBRATION_DRIFT),
    *(EDGE_ABUSE, LOOP_LAG, TRACE_SPANS, OPEN_SPANS, DRAINING, INFO),
)
WORKER: tuple[Metric, ...] = (
    *(REQUEST_DURATION, TIME_TO_FIRST_TOKEN, TIME_PER_OUTPUT_TOKEN, RPC_DURATION),
    *(KV_BLOCKS, KV_BLOCK_SIZE, KV_UTILIZATION, LEDGER_REQUESTS, LEDGER_REFUSALS, RESERVATION_DRIFT),
    *(ENGINE_REQUESTS, ENGINE_TOKENS, ENGINE_STEPS, ENGINE_STEP_AGE, ENGINE_PREEMPTIONS, ENGINE_RATE, PENDING_PREFILL),
    *(EDGE_ABUSE, LOOP_LAG, TRACE_SPANS, OPEN_SPANS, DRAINING, INFO),
)
