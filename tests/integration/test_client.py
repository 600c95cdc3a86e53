from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from tests.fakes.inference_server import HANG, FakeInference, answer, refusal, serve
from tests.fakes.patience import PATIENCE_S
from tidegate.client import Client, Event, TidegateError
from tidegate.inference.v1.chat_pb2 import CHAT_ROLE_USER, ChatMessage, ChatPrompt
from tidegate.inference.v1.generation_pb2 import Delta, Finished, Started
from tidegate.inference.v1.inference_service_pb2 import GenerateRequest, TokenizeRequest

_CHAT = ChatPrompt(messages=[ChatMessage(role=CHAT_ROLE_USER, content="hi")])
_REQUEST = GenerateRequest(model="fake", chat=_CHAT)
_UNAVAILABLE = refusal(grpc.StatusCode.UNAVAILABLE, "NO_WORKER_AVAILABLE", retry_after_s=1.0)
_EXHAUSTED = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "KV_EXHAUSTED", retry_after_s=3.0)
_LONG_EXHAUSTED = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "KV_EXHAUSTED", retry_after_s=600.0)


class _Sleeps:
    """Stands in for asyncio.sleep: notes the wait and goes on at once."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def __call__(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)


def _client(target: str, sleeps: _Sleeps | None = None) -> Client:
    return Client(grpc.aio.insecure_channel(target), sleep=sleeps or _Sleeps())


async def _events(client: Client, *, timeout_s: float = PATIENCE_S) -> list[Event]:
    return [event async for event in client.generate(_REQUEST, timeout_s=timeout_s)]


@pytest.fixture
def service() -> FakeInference:
    """A gateway that answers "Paris."."""
    return FakeInference()


@pytest.fixture
async def target(service: FakeInference) -> AsyncIterator[str]:
    """Its address."""
    async with serve(service) as address:
        yield address


async def test_a_stream_is_started_deltas_finished(target: str) -> None:
    """The events arrive as they were sent."""
    async with _client(target) as client:
        events = await _events(client)

    assert [Started, Delta, Delta, Finished] == [type(event) for event in events]
    assert "Paris." == "".join(piece for event in events if isinstance(event, Delta) for piece in event.text)


async def test_refusals_before_the_first_message_are_retried_after_their_hints(
    service: FakeInference, target: str
) -> None:
    """The third attempt answers; the waits were at least those that the server named."""
    service.scripts = [[_UNAVAILABLE], [_EXHAUSTED], answer("Paris")]
    sleeps = _Sleeps()
    async with _client(target, sleeps) as client:
        events = await _events(client)

    assert isinstance(events[-1], Finished)
    assert 3 == len(service.requests)
    assert [True, True] == [wait >= hint for wait, hint in zip(sleeps.waits_s, (1.0, 3.0), strict=True)]


async def test_attempts_are_bounded(service: FakeInference, target: str) -> None:
    """The reason of the last attempt is the reason of the failure."""
    service.scripts = [[_UNAVAILABLE]]
    async with _client(target) as client:
        with pytest.raises(TidegateError) as caught:
            await _events(client)

    assert ("NO_WORKER_AVAILABLE", 4) == (caught.value.reason, len(service.requests))


async def test_a_hint_beyond_the_deadline_fails_at_once_with_the_servers_reason(
    service: FakeInference, target: str
) -> None:
    """Sleeping through the deadline would only turn KV_EXHAUSTED into DEADLINE_EXCEEDED."""
    service.scripts = [[_LONG_EXHAUSTED]]
    sleeps = _Sleeps()
    async with _client(target, sleeps) as client:
        with pytest.raises(TidegateError) as caught:
            await _events(client)

    assert ("KV_EXHAUSTED", 600.0, []) == (caught.value.reason, caught.value.retry_after_s, sleeps.waits_s)


async def test_nothing_is_retried_after_the_first_message(service: FakeInference, target: str) -> None:
    """What came is valid; a second attempt would say it twice."""
    interrupted = refusal(grpc.StatusCode.UNAVAILABLE, "STREAM_INTERRUPTED")
    service.scripts = [[*answer("Pa", "ris")[:2], interrupted], answer("never")]
    seen: list[Event] = []
    async with _client(target) as client:
        with pytest.raises(TidegateError) as caught:  # noqa: PT012 - what came before the error counts too
            async for event in client.generate(_REQUEST):
                seen.append(event)  # noqa: PERF401 - it has to survive the error

    assert ("STREAM_INTERRUPTED", 1) == (caught.value.reason, len(service.requests))
    assert [Started, Delta] == [type(event) for event in seen]


async def test_leaving_the_loop_cancels_the_call(service: FakeInference, target: str) -> None:
    """The server learns of it at once, without the channel being closed."""
    service.scripts = [[*answer("Pa", "ris")[:2], HANG]]
    async with _client(target) as client:
        async for event in client.generate(_REQUEST, timeout_s=PATIENCE_S):
            if isinstance(event, Delta):
                break
        async with asyncio.timeout(PATIENCE_S):
            await service.cancelled.wait()


async def test_cancelling_the_task_cancels_the_call(service: FakeInference, target: str) -> None:
    """A task that waits for the first message is cancelled on the server too."""
    service.scripts = [[HANG]]
    async with _client(target) as client:
        task = asyncio.create_task(_events(client, timeout_s=PATIENCE_S))
        async with asyncio.timeout(PATIENCE_S):
            await service.called.wait()
            task.cancel()
            await service.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_ok_without_finished_is_an_error(service: FakeInference, target: str) -> None:
    """A truncated answer must not look complete."""
    service.scripts = [answer("Pa")[:-1]]
    async with _client(target) as client:
        with pytest.raises(TidegateError, match="without Finished"):
            await _events(client)


async def test_deadline_reaches_the_server(service: FakeInference, target: str) -> None:
    """A call that hangs ends by its deadline, on both sides."""
    service.scripts = [[HANG]]
    async with _client(target) as client:
        while not service.called.is_set():  # on a busy machine its time may be over before it is there
            with pytest.raises(TidegateError) as caught:
                await _events(client, timeout_s=0.2)
        async with asyncio.timeout(PATIENCE_S):
            await service.cancelled.wait()

    assert grpc.StatusCode.DEADLINE_EXCEEDED is caught.value.code


async def test_models_of_all_pages_are_listed(service: FakeInference, target: str) -> None:
    """The caller does not see pages."""
    service.models, service.page_size = ["a", "b", "c"], 2
    async with _client(target) as client:
        assert ["a", "b", "c"] == [model.name for model in await client.list_models()]


async def test_tokenize_returns_what_the_server_says(target: str) -> None:
    """Without running anything."""
    async with _client(target) as client:
        response = await client.tokenize(TokenizeRequest(model="fake", chat=_CHAT))

    assert [104, 105] == list(response.token_ids)
