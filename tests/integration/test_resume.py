from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.running_worker import running_worker
from tests.fakes.service_process import service_process
from tidegate.client import Client
from tidegate.client.health import GATEWAY, check_health
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.server import CHANNEL_OPTIONS

pytestmark = pytest.mark.usefixtures("data_plane")

_KEY, _OTHER_KEY = "0123456789abcdef0123456789abcdef", "another key that is long enough, really"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Two keys: a new one, and the one before."""
    path = tmp_path / "keys"
    path.write_text(f"{_OTHER_KEY}\n{_KEY}\n", encoding="ascii")
    return path


@pytest.fixture
async def worker() -> AsyncIterator[str]:
    """The address of a sim worker."""
    async with running_worker() as running:
        yield running.worker.address


def _request() -> inference_service_pb2.GenerateRequest:
    request = text_request(model="sim", max_output_tokens=40, min_output_tokens=40, seed=11)
    request.output.include_resume_token = True
    return request


def _resuming(
    request: inference_service_pb2.GenerateRequest, responses: list[inference_service_pb2.GenerateResponse]
) -> inference_service_pb2.GenerateRequest:
    resuming = inference_service_pb2.GenerateRequest()
    resuming.CopyFrom(request)
    resuming.resume.token = responses[0].started.resume_token
    resuming.resume.token_ids.extend(token for response in responses for token in response.delta.token_ids)
    resuming.resume.text_byte_count = len(text_of(responses).encode())
    return resuming


async def _begin(
    gateway: RunningGateway, request: inference_service_pb2.GenerateRequest
) -> list[inference_service_pb2.GenerateResponse]:
    """The first responses of a call that then breaks off."""
    call = gateway.stub.Generate(request)
    responses = []
    async for response in call:
        responses.append(response)
        if len(responses) == 4:
            break
    call.cancel()
    return responses


async def test_any_replica_goes_on_with_what_the_client_has(worker: str, key_file: Path, tmp_path: Path) -> None:
    """Another gateway, which knows nothing of the first call, and signs with another key."""
    old_keys = tmp_path / "old"
    old_keys.write_text(_KEY, encoding="ascii")
    async with (
        running_gateway(worker, resume_key_file=old_keys) as first,
        running_gateway(worker, resume_key_file=key_file) as second,
    ):
        whole, _ = await first.generate(_request())
        begun = await _begin(first, _request())
        rest, error = await second.generate(_resuming(_request(), begun))

    assert error is None
    assert text_of(whole) == text_of(begun) + text_of(rest)
    assert whole[-1].finished.usage.output_token_count == rest[-1].finished.usage.output_token_count
    assert "started" == rest[0].WhichOneof("event")


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"token": "forged"}, "RESUME_TOKEN_INVALID", "resume.token"),
        ({"token": ""}, "INVALID_REQUEST", "resume.token"),
        ({"token_ids": [10**6]}, "INVALID_REQUEST", "resume.token_ids"),
        ({"token_ids": [1] * 41}, "INVALID_REQUEST", "resume.token_ids"),
        ({"token_ids": []}, "INVALID_REQUEST", "resume.token_ids"),
        ({"text_byte_count": -1}, "INVALID_REQUEST", "resume.text_byte_count"),
    ],
)
async def test_a_bad_resume_point_is_refused_by_its_field(
    worker: str, key_file: Path, change: dict[str, object], reason: str, field: str
) -> None:
    """Before anything is asked of a worker."""
    async with running_gateway(worker, resume_key_file=key_file) as gateway:
        request = _resuming(_request(), await _begin(gateway, _request()))
        for name, value in change.items():
            request.resume.ClearField(name)  # type: ignore[arg-type]
            request.resume.MergeFrom(generation_pb2.ResumePoint(**{name: value}))  # type: ignore[arg-type]
        error = await gateway.error(request)

    assert (grpc.StatusCode.INVALID_ARGUMENT, reason) == (error.code, error.reason)
    assert [field] == [violation.field for violation in error.violations]


async def test_a_token_is_for_the_request_it_was_given_for(worker: str, key_file: Path) -> None:
    """Not for another prompt."""
    async with running_gateway(worker, resume_key_file=key_file) as gateway:
        request = _resuming(_request(), await _begin(gateway, _request()))
        request.text = "something else"
        error = await gateway.error(request)

    assert "RESUME_TOKEN_INVALID" == error.reason


async def test_a_token_expires(worker: str, key_file: Path) -> None:
    """Then the request has to begin anew."""
    async with running_gateway(worker, resume_key_file=key_file, resume_token_lifetime_s=1e-9) as gateway:
        error = await gateway.error(_resuming(_request(), await _begin(gateway, _request())))

    assert (grpc.StatusCode.FAILED_PRECONDITION, "RESUME_TOKEN_EXPIRED") == (error.code, error.reason)


async def test_without_a_key_there_are_no_tokens(worker: str) -> None:
    """And nothing can be resumed."""
    async with running_gateway(worker) as gateway:
        begun = await _begin(gateway, _request())
        request = _resuming(_request(), begun)
        request.resume.token = "some"
        error = await gateway.error(request)

    assert ("", "RESUME_UNSUPPORTED") == (begun[0].started.resume_token, error.reason)


async def test_the_client_outlives_its_gateway(stack: AsyncExitStack, key_file: Path) -> None:
    """Killed in the middle of an answer; the client goes to the next gateway, and gets every token once."""
    worker = await stack.enter_async_context(service_process("worker", "--engine", "sim"))
    gateways = [
        await stack.enter_async_context(
            service_process("gateway", "--workers", worker.address, "--resume-key-file", str(key_file))
        )
        for _ in range(2)
    ]
    for gateway in gateways:
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            while "SERVING" != await check_health(channel, GATEWAY, timeout_s=PATIENCE_S):
                pass
    # pick_first: the connection is to the first one until that is gone.
    target = f"ipv4:{','.join(gateway.address for gateway in gateways)}"
    client = await stack.enter_async_context(Client(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)))
    request = text_request(model="sim", max_output_tokens=200, min_output_tokens=200, seed=11)
    request.output.include_resume_token = True
    expected = [event async for event in client.generate(request)]

    events = []
    async for event in client.generate(request):
        events.append(event)
        if len(events) == 5:
            gateways[0].process.kill()

    assert _token_ids(expected) == _token_ids(events)
    assert 1 == sum(isinstance(event, generation_pb2.Started) for event in events)


def _token_ids(events: list[generation_pb2.Started | generation_pb2.Delta | generation_pb2.Finished]) -> list[int]:
    return [token for event in events if isinstance(event, generation_pb2.Delta) for token in event.token_ids]
