"""A request that is ready to run, and what a worker is asked to do for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from gateway.chat import Chat
from gateway.errors import InvalidRequestError
from gateway.model import ServedModel
from gateway.options import digested
from gateway.policy.decision import budget_record
from gateway.policy.demand import Demand
from gateway.policy.load import WorkerLoad
from gateway.policy.output_budget import OutputBudget, OutputDemand, output_budget
from gateway.policy.record import Record
from gateway.prefix import prefix_names, prefix_stride
from gateway.prompt import fit, token_ids
from gateway.request import ValidRequest, parse_generate
from gateway.resume import Resumed, ResumeTokens
from tidegate.inference.v1 import chat_pb2, generation_pb2, inference_service_pb2
from tidegate.rpc.status import Violation
from tidegate.rpc.token_ids import TOKEN_ID_BYTES
from tidegate.worker.v1 import worker_service_pb2

_REQUEST_BYTES = 4_096  # what Python takes for a request beside its tokens
# Preparing a small request without a constraint takes 0.1 to 0.5 ms, and a thread costs the event loop a tenth of it.
_MAX_LIGHT_BYTES = 2048
# Templates take up to 0.05 ms for each part of a conversation, and an empty one is six bytes.
_MAX_LIGHT_PARTS = 32
_SAID = Chat(messages=())
_NOTHING_DIGESTED = bytes(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What the client has of a generation that another worker is to go on with.

    ``text_bytes`` is how much of the tokens' text, in UTF-8; ``continuations`` are those that gave tokens.
    """

    token_ids: Sequence[int]
    text_bytes: int
    continuations: int
    is_started: bool = True


@dataclass(slots=True, kw_only=True, init=False)
class PreparedRequest:
    """A valid request with its prompt's tokens. ``max_output_tokens`` is resolved, and fits context and KV pool."""

    response_id: str
    tenant: str
    request: ValidRequest
    packed_ids: bytes
    max_output_tokens: int
    demand: Demand
    resume_token: str = ""
    resumed: Resumed | None = None

    def __init__(  # noqa: PLR0913 - its fields
        self,
        *,
        response_id: str,
        tenant: str,
        request: ValidRequest,
        packed_ids: bytes,
        max_output_tokens: int,
        demand: Demand,
        resume_token: str = "",
        resumed: Resumed | None = None,
    ) -> None:
        self.response_id = response_id
        self.tenant = tenant
        self.request = request
        self.packed_ids = packed_ids
        self.max_output_tokens = max_output_tokens
        self.demand = demand
        self.resume_token = resume_token
        self.resumed = resumed

    @classmethod
    def from_public(
        cls,
        request: bytes | inference_service_pb2.GenerateRequest,
        models: Mapping[str, ServedModel],
        *,
        response_id: str,
        tenant: str,
        resume_tokens: ResumeTokens,
    ) -> PreparedRequest:
        """Parse, validate, render, tokenise and fit a GenerateRequest, serialised or not. Raises ``GatewayError``.

        Costs CPU: call it in a thread, unless there is a ``light`` form of the request.
        """
        parsed = parse(request) if isinstance(request, bytes) else request
        valid = parse_generate(parsed, models)
        resumed = resume_tokens.check(parsed, valid, tenant=tenant)
        packed_ids = token_ids(valid)
        prompt_tokens = len(packed_ids) // TOKEN_ID_BYTES
        max_output_tokens = fit(valid, prompt_tokens)
        resumed_tokens = len(resumed.token_ids) if resumed else 0
        if resumed_tokens > max_output_tokens:
            description = f"are more than the {max_output_tokens} output tokens of the request"
            raise InvalidRequestError([Violation(field="resume.token_ids", description=description)])
        stride = prefix_stride(valid.model.block_size)
        return PreparedRequest(
            response_id=response_id,
            tenant=tenant,
            request=valid,
            packed_ids=packed_ids,
            max_output_tokens=max_output_tokens,
            demand=Demand(
                prompt_tokens=prompt_tokens + resumed_tokens,
                need_tokens=prompt_tokens + max_output_tokens,
                prefix=prefix_names(packed_ids, stride),
                prefix_stride=stride,
                digest=_digest(valid, packed_ids),
            ),
            resume_token=resume_tokens.issue(parsed, tenant=tenant),
            resumed=resumed,
        )

    def without_text(self) -> PreparedRequest:
        """For as long as the stream lasts: what the prompt says, its tokens say."""
        request = self.request
        # Written out, since ``dataclasses.replace`` takes longer than what is made here.
        return PreparedRequest(
            response_id=self.response_id,
            tenant=self.tenant,
            request=ValidRequest(
                model=request.model,
                prompt=_SAID if isinstance(request.prompt, Chat) else "",
                options=request.options,
                constraint=request.constraint,
                criticality=request.criticality,
                short_deadline_policy=request.short_deadline_policy,
            ),
            packed_ids=self.packed_ids,
            max_output_tokens=self.max_output_tokens,
            demand=self.demand,
            resume_token=self.resume_token,
            resumed=self.resumed,
        )

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.packed_ids) // TOKEN_ID_BYTES

    @property
    def size_bytes(self) -> int:
        """About how much memory the request takes while it waits."""
        return _REQUEST_BYTES + len(self.packed_ids)

    def budget(
        self,
        load: WorkerLoad,
        *,
        remaining_s: float,
        delivered_tokens: int = 0,
        on_decision: Callable[[Record], None] | None = None,
    ) -> OutputBudget:
        """The output for which a worker with this ``load`` has the time, together with the ``delivered_tokens``.

        Raises ``DeadlineTooShortError``, but never once there is output.
        """
        may_clamp = self.request.short_deadline_policy != generation_pb2.SHORT_DEADLINE_POLICY_REFUSE
        left = self.max_output_tokens - delivered_tokens
        if not left or (delivered_tokens and not may_clamp):
            return OutputBudget(max_output_tokens=self.max_output_tokens, is_clamped=False)
        demand = OutputDemand(
            prompt_tokens=self.prompt_tokens + delivered_tokens,
            min_output_tokens=max(0, self.request.options.min_output_tokens - delivered_tokens),
            max_output_tokens=left,
            may_clamp=may_clamp,
            has_begun=bool(delivered_tokens),
        )
        if on_decision is not None:
            on_decision(budget_record(demand, load, remaining_s=remaining_s))
        budget = output_budget(demand, load, remaining_s=remaining_s)
        if not delivered_tokens:
            return budget
        return replace(budget, max_output_tokens=budget.max_output_tokens + delivered_tokens)

    def job(
        self,
        budget: OutputBudget,
        queue: worker_service_pb2.GatewayQueue | None = None,
        delivered: Delivered | None = None,
    ) -> bytes:
        """The worker's request, serialised: each attempt has its own, and nobody keeps it.

        ``queue`` is what waits in this gateway.
        """
        request = self.request
        job = worker_service_pb2.GenerateRequest(
            response_id=self.response_id, prompt_token_ids=self.packed_ids, gateway_queue=queue
        )
        job.sampling.max_output_tokens = budget.max_output_tokens
        job.criticality = request.criticality
        job.tenant = self.tenant
        if budget.is_clamped:
            job.is_budget_clamped = True
        if request.constraint is not None:
            job.constraint.CopyFrom(request.constraint)
        if self.resume_token:
            job.resume_token = self.resume_token
        if delivered is None:
            asked = request.options.job
        else:
            job.is_started = delivered.is_started
            job.continued_token_ids.extend(delivered.token_ids)
            job.continued_text_byte_count = delivered.text_bytes
            job.continuation_count = delivered.continuations
            going_on = bool(delivered.token_ids)
            checkpoint = request.model.checkpoint_sha256
            asked = request.options.job_going_on(checkpoint) if going_on else request.options.job
        # The serialised parts of a message, one behind the other, are the message.
        return asked + job.SerializeToString()


def parse(request: bytes) -> inference_service_pb2.GenerateRequest:
    """A serialised GenerateRequest, parsed. Raises ``InvalidRequestError``."""
    try:
        return inference_service_pb2.GenerateRequest.FromString(request)
    except DecodeError as error:
        raise InvalidRequestError([Violation(field="", description="is not a GenerateRequest")]) from error


def light(request: bytes) -> inference_service_pb2.GenerateRequest | None:
    """The parsed form of a GenerateRequest that is quickly prepared: small, in few parts, and without a constraint.

    None for others. Raises ``InvalidRequestError``.
    """
    if len(request) > _MAX_LIGHT_BYTES:
        return None
    parsed = parse(request)
    return None if parsed.HasField("constraint") or _parts(parsed.chat) > _MAX_LIGHT_PARTS else parsed


def _parts(chat: chat_pb2.ChatPrompt) -> int:
    """Its messages, tools and tool calls; of too many messages the calls are not counted."""
    parts = len(chat.messages) + len(chat.tools)
    return parts if parts > _MAX_LIGHT_PARTS else parts + sum(len(message.tool_calls) for message in chat.messages)


def _digest(request: ValidRequest, packed_ids: bytes) -> bytes:
    """Names all that decides what an engine does, except for the seed: a poison is not one for its luck.

    Nobody must be able to have another one's request quarantined, so that this is a cryptographic digest.
    """
    options = request.options
    constraint = _NOTHING_DIGESTED if request.constraint is None else digested(request.constraint)
    content = b"".join((options.sampling_digested, constraint, options.output_digested, packed_ids))
    return hashlib.blake2b(content, digest_size=16).digest()
