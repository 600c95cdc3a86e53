"""One question, one streamed answer: between the client and a view."""

from __future__ import annotations

from contextlib import aclosing

from tidegate.client.client import Client
from tidegate.client.output import AnswerView
from tidegate.client.stats import StreamMeter, StreamStats
from tidegate.inference.v1 import chat_pb2, generation_pb2, inference_service_pb2


class Answer:
    """An answer while it comes and after. What has come before an error or a cancellation stays in ``text``."""

    def __init__(self, view: AnswerView) -> None:
        """Show everything in ``view``."""
        self._view = view
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    async def stream(
        self, client: Client, request: inference_service_pb2.GenerateRequest, *, timeout_s: float
    ) -> StreamStats:
        """Ask ``request`` and show the answer to its end. Raises ``TidegateError``."""
        meter = StreamMeter()
        try:
            async with aclosing(client.generate(request, timeout_s=timeout_s)) as events:
                async for event in events:
                    meter.observe(event)
                    if isinstance(event, generation_pb2.Delta):
                        self._pieces.extend(event.text)
                    self._view.show(event)
        finally:
            self._view.end()
        return meter.stats()


def chat_request(
    model: str,
    messages: list[chat_pb2.ChatMessage],
    *,
    max_output_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
) -> inference_service_pb2.GenerateRequest:
    """A request to continue ``messages``; options that are None are left to the model's defaults."""
    return inference_service_pb2.GenerateRequest(
        model=model,
        chat=chat_pb2.ChatPrompt(messages=messages),
        sampling=generation_pb2.SamplingOptions(
            max_output_tokens=max_output_tokens, temperature=temperature, seed=seed
        ),
        # The meter counts tokens by their ids; with a token the client goes on when its connection is lost.
        output=generation_pb2.OutputOptions(include_token_ids=True, include_resume_token=True),
    )
