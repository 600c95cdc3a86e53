"""Writes docs/errors.md from the error tables of the services: ``python docs/errors.py``, or ``make docs``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from grpc import StatusCode

from gateway import errors as gateway_errors
from tidegate.inference.v1 import error_reason_pb2
from tidegate.worker.v1 import worker_service_pb2
from worker import errors as worker_errors

_HEAD = """\
# Errors

Made by `make docs` from the tables in `gateway/errors.py` and `worker/errors.py`; a test keeps them equal.

Every error is a `google.rpc.Status` (trailing metadata `grpc-status-details-bin`) with exactly one
`google.rpc.ErrorInfo`. Decide by its `reason`: messages are for people and change. Every number in a message stands in
`ErrorInfo.metadata` too. An error without `ErrorInfo` was not made by Tidegate, but by gRPC or a proxy on the way, as
`RESOURCE_EXHAUSTED` is for a message of more than 4 MiB, which no wait helps.

| detail | what it holds |
|---|---|
| `BadRequest` | every invalid field, by its path in the request |
| `RetryInfo` | how long to wait |
| `QuotaFailure` | the quota that is used up, as `subject` |
| `ResourceInfo` | the type and name of what does not exist |

Retry without being told only on `UNAVAILABLE`, and only while no message of the stream has arrived
([service_config.json](../protos/service_config.json) makes gRPC clients do so). Retry `RESOURCE_EXHAUSTED` after the
wait in `RetryInfo`. gRPC's own retries obey the trailer `grpc-retry-pushback-ms`: it holds the same wait, and -1 where
a retry cannot help.
"""


class _Spec(Protocol):
    @property
    def code(self) -> StatusCode: ...
    @property
    def reason(self) -> Any: ...
    @property
    def details(self) -> tuple[str, ...]: ...
    @property
    def remedy(self) -> str: ...


def errors_reference() -> str:
    """The whole page."""
    return "\n".join(
        (
            _HEAD,
            "## The public API: domain `tidegate.inference.v1`",
            "",
            *_table(gateway_errors.ERROR_TABLE.items(), error_reason_pb2.ErrorReason.Name, "ERROR_REASON_"),
            "",
            "## Workers: domain `tidegate.worker.v1`",
            "",
            "Only gateways see these. A gateway tries another worker or answers with an error of its own.",
            "",
            *_table(
                worker_errors.ERROR_TABLE.items(), worker_service_pb2.WorkerErrorReason.Name, "WORKER_ERROR_REASON_"
            ),
            "",
        )
    )


def _table(
    errors: Iterable[tuple[type[Exception], _Spec]], name_of: Callable[[Any], str], prefix: str
) -> Iterable[str]:
    yield "| reason | status | meaning | details | what to do |"
    yield "|---|---|---|---|---|"
    for error, spec in sorted(errors, key=lambda item: item[1].reason):
        reason = name_of(spec.reason).removeprefix(prefix)
        meaning = (error.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        details = ", ".join(f"`{detail}`" for detail in spec.details)
        yield f"| `{reason}` | `{spec.code.name}` | {meaning} | {details} | {spec.remedy} |"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(errors_reference(), encoding="utf-8")
