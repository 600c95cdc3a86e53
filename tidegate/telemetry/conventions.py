"""Names from OpenTelemetry's semantic conventions, and our own beside them. No other file spells one out.

Pinned: semantic conventions 1.44.0, as in opentelemetry-semantic-conventions 0.66b2 (a test compares). GenAI is in
Development there and RPC a release candidate, so names may change; then they change here, with a line in the changelog.
Our own begin with ``tidegate.``.
"""

from __future__ import annotations

from typing import Final

SEMCONV_VERSION: Final = "1.44.0"
SCHEMA_URL = f"https://opentelemetry.io/schemas/{SEMCONV_VERSION}"

# RPC
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
RPC_SERVER_CALL_DURATION: Final = "rpc.server.call.duration"

# General
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"

# GenAI, attributes
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - no password
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

# GenAI, metrics
GEN_AI_CLIENT_OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
GEN_AI_CLIENT_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
GEN_AI_CLIENT_TIME_PER_OUTPUT_CHUNK: Final = "gen_ai.client.operation.time_per_output_chunk"
GEN_AI_CLIENT_TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105
GEN_AI_SERVER_REQUEST_DURATION: Final = "gen_ai.server.request.duration"
GEN_AI_SERVER_TIME_TO_FIRST_TOKEN: Final = "gen_ai.server.time_to_first_token"  # noqa: S105
GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN: Final = "gen_ai.server.time_per_output_token"  # noqa: S105

# The registry of providers has no value for a server of one's own.
PROVIDER: Final = "tidegate"

# What a worker does: it is given token ids, whatever they were rendered from.
GENERATE: Final = "text_completion"

# Ours, attributes
TENANT: Final = "tidegate.tenant"
CRITICALITY: Final = "tidegate.criticality"
STATE: Final = "tidegate.state"
RUNTIME: Final = "tidegate.runtime"  # python or compiled: see tidegate/native
PHASE: Final = "tidegate.phase"
PHASE_MEASURED: Final = "tidegate.phase.is_measured"  # by the engine, and not seen from outside
OUTCOME: Final = "tidegate.outcome"
KIND: Final = "tidegate.kind"
ATTEMPTS: Final = "tidegate.attempts"
ATTEMPT_NUMBER: Final = "tidegate.attempt.number"
ATTEMPT_OUTCOME: Final = "tidegate.attempt.outcome"
CONTINUED_TOKENS: Final = "tidegate.attempt.continued_tokens"  # that others had delivered before
WAITED: Final = "tidegate.queue.waited_s"
PREDICTED_FIRST_TOKEN: Final = "tidegate.route.predicted_first_token_s"  # noqa: S105
AVAILABLE_BLOCKS: Final = "tidegate.route.available_blocks"
LOAD_AGE: Final = "tidegate.route.load_age_s"
ROUTE_CANDIDATES: Final = "tidegate.route.candidates"  # the best first
ROUTE_CANDIDATES_FIRST_TOKEN: Final = "tidegate.route.candidates.predicted_first_token_s"  # noqa: S105

# Ours, spans and events
VALIDATE: Final = "validate"
QUEUE: Final = "queue"
ROUTE: Final = "route"
CONTINUATION: Final = "continuation"
WORKER_LOST: Final = "tidegate.worker_lost"

# Buckets, as the conventions mandate them; seconds and tokens.
GEN_AI_CLIENT_DURATION_BUCKETS = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
GEN_AI_TIME_TO_FIRST_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
GEN_AI_TIME_PER_OUTPUT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
GEN_AI_TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
RPC_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
