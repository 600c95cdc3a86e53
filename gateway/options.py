"""What requests ask for beside their prompts: checked once and held once for all that ask a model for the same."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import Message

from tidegate.inference.v1 import generation_pb2
from tidegate.worker.v1 import worker_service_pb2

_MAX_KNOWN = 512
# Longer ones, with biases and many stop strings, seldom come again, and callers could fill memory with them.
_MAX_KNOWN_BYTES = 1024


@dataclass(slots=True, kw_only=True, init=False)
class Options:
    """Valid options. Not to be changed: each request would take a kilobyte of its own for them with its stream.

    ``sampling`` has the model's defaults filled in. ``max_output_tokens`` excepted: they depend on the prompt, and are
    None where the caller leaves them open (gateway/prompt.py).
    """

    sampling: generation_pb2.SamplingOptions
    output: generation_pb2.OutputOptions
    max_output_tokens: int | None
    min_output_tokens: int
    job: bytes  # their part of the worker's request, serialised
    # Their parts of what names all that decides what an engine does; a seed decides nothing.
    sampling_digested: bytes
    output_digested: bytes

    def __init__(
        self,
        *,
        sampling: generation_pb2.SamplingOptions,
        output: generation_pb2.OutputOptions,
        checkpoint_sha256: str,
    ) -> None:
        self.sampling = sampling
        self.output = output
        self.max_output_tokens = sampling.max_output_tokens if sampling.HasField("max_output_tokens") else None
        self.min_output_tokens = sampling.min_output_tokens
        self.job = _job(sampling, output, checkpoint_sha256)
        seedless = generation_pb2.SamplingOptions()
        seedless.CopyFrom(sampling)
        seedless.ClearField("seed")
        self.sampling_digested = checkpoint_sha256.encode() + digested(seedless)
        self.output_digested = digested(output)

    def job_going_on(self, checkpoint_sha256: str) -> bytes:
        """As ``job``, for who goes on behind the first tokens: with these came what there is to tell of the prompt."""
        if not self.output.HasField("prompt_logprobs"):
            return self.job
        output = generation_pb2.OutputOptions()
        output.CopyFrom(self.output)
        output.ClearField("prompt_logprobs")
        return _job(self.sampling, output, checkpoint_sha256)


class KnownOptions:
    """What one model was asked for, by its serialised form. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes, bool], Options] = {}

    def find(self, sampling: bytes, output: bytes, *, is_constrained: bool) -> Options | None:
        """What has been found valid; a constraint allows less."""
        return self._known.get((sampling, output, is_constrained))

    def keep(self, sampling: bytes, output: bytes, *, is_constrained: bool, options: Options) -> None:
        """``options`` have been found valid. Long ones are forgotten."""
        if len(sampling) + len(output) > _MAX_KNOWN_BYTES:
            return
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[sampling, output, is_constrained] = options


def digested(message: Message) -> bytes:
    """The form in which a message goes into a digest: with its length, so that two of them have one border."""
    part = message.SerializeToString(deterministic=True)
    return len(part).to_bytes(8, "big") + part


def _job(
    sampling: generation_pb2.SamplingOptions, output: generation_pb2.OutputOptions, checkpoint_sha256: str
) -> bytes:
    """It always asks for token ids: should the worker be lost, another one needs them."""
    job = worker_service_pb2.GenerateRequest(checkpoint_sha256=checkpoint_sha256, sampling=sampling, output=output)
    job.sampling.ClearField("max_output_tokens")
    job.output.include_token_ids = True
    return job.SerializeToString()
