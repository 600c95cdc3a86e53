from __future__ import annotations

import grpc

from tidegate.rpc.status import Violation
from tidegate.worker.v1 import worker_service_pb2
from worker import errors
from worker.constraints import ConstraintRejectedError
from worker.errors import ERROR_TABLE, CheckpointMismatchError, InvalidJobError, to_rpc
from worker.ledger import AtCapacityError, Limit, Refusal, Room

_AT_CAPACITY = Refusal(
    limit=Limit.BLOCKS,
    needed_blocks=1,
    room=Room(blocks=0, requests=1, prompt_tokens=None),
    requests=2,
    largest_tokens=0,
    released_blocks_per_s=3.0,
    retry_after_s=0.5,
)
_SAMPLES: dict[type[Exception], Exception] = {
    AtCapacityError: AtCapacityError(_AT_CAPACITY),
    CheckpointMismatchError: CheckpointMismatchError(served="a", requested="b"),
    InvalidJobError: InvalidJobError([Violation(field="f", description="d")]),
    ConstraintRejectedError: ConstraintRejectedError("constraint.regex", "bad"),
}


def test_every_reason_is_used_once() -> None:
    """The enum of the contract and the table name the same reasons."""
    reasons = sorted(worker_service_pb2.WorkerErrorReason.values())[1:]

    assert reasons == sorted(spec.reason for spec in ERROR_TABLE.values())


def test_every_error_of_the_module_is_in_the_table() -> None:
    """No exception class of the worker is left without a status."""
    own = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)}

    assert own == set(ERROR_TABLE)


def test_details_are_those_of_the_table() -> None:
    """Each status has one ErrorInfo, and beside it what the table says."""
    for kind, spec in ERROR_TABLE.items():
        status = to_rpc(_SAMPLES.get(kind) or kind("text")).to_proto()
        names = [detail.TypeName() for detail in status.details]
        assert ["google.rpc.ErrorInfo", *(f"google.rpc.{name}" for name in spec.details)] == names
        assert spec.code.value[0] == status.code


def test_subclass_of_a_known_error_is_no_known_error() -> None:
    """What nobody put into the table is INTERNAL."""

    class OtherError(AtCapacityError):
        pass

    error = to_rpc(OtherError(_AT_CAPACITY))

    assert (grpc.StatusCode.INTERNAL, "INTERNAL") == (error.code, error.reason)
