from __future__ import annotations

from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.rpc import code_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from tidegate.rpc.server import abort
from tidegate.rpc.status import INFERENCE_DOMAIN, PUSHBACK_KEY, RpcError, Violation

_METHOD = "/test.Service/Method"
_CODES = st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
# Milliseconds are what pushback can say.
_WAITS_S = st.integers(min_value=0, max_value=10**7).map(lambda milliseconds: milliseconds / 1000)
_VIOLATIONS = st.builds(Violation, field=st.text(), description=st.text())


@st.composite
def errors(draw: st.DrawFn) -> RpcError:
    """Any error that a service could send."""
    return RpcError(
        code=draw(_CODES),
        reason=draw(st.text(min_size=1)),
        domain=INFERENCE_DOMAIN,
        message=draw(st.text()),
        metadata=draw(st.dictionaries(st.text(), st.text(), max_size=3)),
        violations=tuple(draw(st.lists(_VIOLATIONS, max_size=3))),
        retry_after_s=draw(st.none() | _WAITS_S),
        quota_subject=draw(st.none() | st.text()),
        resource=draw(st.none() | st.tuples(st.text(), st.text())),
    )


async def call_that_ends_with(error: RpcError | None) -> grpc.aio.AioRpcError:
    """What a client catches when a server ends a call with ``error``, or a proxy without any details (None)."""

    async def fail(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if error is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "upstream connect error")
        else:
            await abort(context, error)
        return b""

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(cast("Any", fail))  # grpc's types know the blocking form only
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Method": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_unary(_METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"")
    await server.stop(0)
    return caught.value


@given(errors())
def test_an_error_survives_its_wire_form(error: RpcError) -> None:
    """What one end writes the other end reads, to the millisecond."""
    wire = error.to_proto().SerializeToString()
    assert error == RpcError.from_proto(status_pb2.Status.FromString(wire), code=error.code)


@given(errors())
def test_each_detail_stands_once_and_error_info_always(error: RpcError) -> None:
    """AIP-193: one ErrorInfo, and at most one of every other detail."""
    kinds = [detail.TypeName() for detail in error.to_proto().details]
    assert "google.rpc.ErrorInfo" == kinds[0]
    assert len(kinds) == len(set(kinds))


@given(errors())
def test_pushback_says_what_retry_info_says(error: RpcError) -> None:
    """Retries of gRPC's own wait as long as RetryInfo asks; where a retry cannot help they end."""
    pushback = dict(error.trailers).get(PUSHBACK_KEY)
    if error.retry_after_s is not None:
        assert str(round(error.retry_after_s * 1000)) == pushback
    elif error.code is grpc.StatusCode.UNAVAILABLE:
        assert pushback is None
    else:
        assert "-1" == pushback


async def test_an_error_survives_a_real_call() -> None:
    """Status, details and pushback arrive in the trailers of a failed call."""
    error = RpcError(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="KV_EXHAUSTED",
        domain=INFERENCE_DOMAIN,
        message="no KV blocks for 3 s: größer als erlaubt",
        metadata={"needed_blocks": "7"},
        violations=(Violation(field="sampling.top_p", description="must be above 0"),),
        retry_after_s=3.0,
        quota_subject="tenant",
        resource=("model", "smollm2"),
    )
    caught = await call_that_ends_with(error)
    assert error == RpcError.from_call(caught)
    assert "3000" == dict(caught.trailing_metadata())[PUSHBACK_KEY]


async def test_an_error_without_details_has_no_reason() -> None:
    """A proxy's own refusal is told from ours."""
    error = RpcError.from_call(await call_that_ends_with(None))
    assert (grpc.StatusCode.UNAVAILABLE, "", "upstream connect error") == (error.code, error.reason, error.message)


def test_details_that_nobody_knows_are_passed_over() -> None:
    """A newer server may send details that this client has not heard of."""
    error = RpcError(code=grpc.StatusCode.INTERNAL, reason="INTERNAL", domain=INFERENCE_DOMAIN, message="m")
    status = error.to_proto()
    status.details.add(type_url="type.googleapis.com/google.rpc.Unheard", value=b"\x08\x01")
    assert code_pb2.INTERNAL == status.code
    assert error == RpcError.from_proto(status, code=error.code)
