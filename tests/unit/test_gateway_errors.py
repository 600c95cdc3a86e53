from __future__ import annotations

import pytest
from grpc import StatusCode

from gateway import errors
from gateway.errors import ERROR_TABLE, GatewayError, NoWorkerAvailableError, to_rpc
from gateway.violations import Violations
from tidegate.http2.fields import list_bytes
from tidegate.http2.server_call import RESPONSE_HEAD
from tidegate.inference.v1 import error_reason_pb2
from tidegate.rpc.http2_status import to_status
from tidegate.rpc.status import Violation


def test_every_exception_stands_in_the_table() -> None:
    """None of them would become a bare INTERNAL by oversight."""
    assert set(GatewayError.__subclasses__()) == set(ERROR_TABLE)


def test_every_reason_of_the_contract_has_one_exception() -> None:
    """Nothing is promised that is never sent, and nothing is sent twice over."""
    used = sorted(spec.reason for spec in ERROR_TABLE.values())
    assert used == sorted(set(error_reason_pb2.ErrorReason.values()) - {error_reason_pb2.ERROR_REASON_UNSPECIFIED})


def test_what_nobody_foresaw_tells_nothing() -> None:
    """The text of a strange exception may hold anything."""
    rpc = to_rpc(KeyError("secret"))
    assert (StatusCode.INTERNAL, "INTERNAL") == (rpc.code, rpc.reason)
    assert "secret" not in rpc.message


def test_a_known_error_keeps_its_particulars() -> None:
    """Message, metadata and hint travel."""
    rpc = to_rpc(NoWorkerAvailableError("none", metadata={"a": "1"}, retry_after_s=2.0))
    assert ("none", {"a": "1"}, 2.0) == (rpc.message, rpc.metadata, rpc.retry_after_s)
    assert (StatusCode.UNAVAILABLE, "NO_WORKER_AVAILABLE") == (rpc.code, rpc.reason)


def test_long_lists_of_violations_are_cut_in_the_message_only() -> None:
    """The message stands in trailers, of which clients take little."""
    violations = [Violation(field=f"f{number}", description="is bad") for number in range(10)]
    error = errors.InvalidRequestError(violations)
    assert str(error).endswith("and 2 more")
    assert 10 == len(to_rpc(error).violations)


@pytest.mark.parametrize("size", [30, 60, 100, 250, 500, 1_100])
def test_however_much_is_wrong_clients_take_it(size: int) -> None:
    """Of trailers beyond 8 KiB grpc's clients make an error of their own, which tells to come again."""
    violations = Violations()
    for _ in range(100):
        violations.add("constraint.json_schema", "x" * (size - len("constraint.json_schema")))
    with pytest.raises(errors.InvalidRequestError) as caught:
        violations.raise_if_any()
    fields = [*RESPONSE_HEAD, *to_status(to_rpc(caught.value)).fields()]
    assert list_bytes(fields) <= 8_192


@pytest.mark.parametrize("spec", ERROR_TABLE.values(), ids=lambda spec: error_reason_pb2.ErrorReason.Name(spec.reason))
def test_every_error_tells_what_to_do(spec: errors.ErrorSpec) -> None:
    """docs/errors.md is made of it."""
    assert spec.remedy.endswith(".")
