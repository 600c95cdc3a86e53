"""Build and read errors as google.rpc.Status: one ErrorInfo always, other details where they help (AIP-193).

The services decide which exception becomes which status (their errors.py); this module only knows the wire form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

INFERENCE_DOMAIN = "tidegate.inference.v1"
WORKER_DOMAIN = "tidegate.worker.v1"

# gRFC A6: a client with a retry policy waits exactly this long; a negative value tells it not to retry.
PUSHBACK_KEY = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One invalid field: its path in the request, such as ``sampling.top_p``, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcError:
    """An error as it travels. ``reason`` has no enum prefix; ``retry_after_s`` is None where a retry cannot help."""

    code: grpc.StatusCode
    reason: str
    domain: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_after_s: float | None = None
    quota_subject: str | None = None
    resource: tuple[str, str] | None = None  # (type, name)

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """Trailing metadata that belongs to the error beside its status details."""
        if self.retry_after_s is not None:
            return ((PUSHBACK_KEY, str(_milliseconds(self.retry_after_s))),)
        # -1 stops a client's retryPolicy at once. UNAVAILABLE is left to the client's own back-off.
        return () if self.code is grpc.StatusCode.UNAVAILABLE else ((PUSHBACK_KEY, "-1"),)

    def to_proto(self) -> status_pb2.Status:
        """The google.rpc.Status with all details, each type at most once."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=dict(self.metadata))
        status.details.add().Pack(info)
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for violation in self.violations:
                bad.field_violations.add(field=violation.field, description=violation.description)
            status.details.add().Pack(bad)
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromMilliseconds(_milliseconds(self.retry_after_s))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.quota_subject is not None:
            quota = error_details_pb2.QuotaFailure()
            quota.violations.add(subject=self.quota_subject, description=self.message)
            status.details.add().Pack(quota)
        if self.resource is not None:
            kind, name = self.resource
            status.details.add().Pack(
                error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, description=self.message)
            )
        return status

    @classmethod
    def from_call(cls, error: grpc.RpcError) -> RpcError:
        """Read a failed call. An error without details, such as one of a proxy, has an empty reason."""
        code = error.code()
        try:
            status = rpc_status.from_call(cast("grpc.Call", error))
        except ValueError:  # details that contradict the status: somebody else's error
            status = None
        if status is None:
            return cls(code=code, reason="", domain="", message=error.details() or "")
        return cls.from_proto(status, code=code)

    @classmethod
    def from_proto(cls, status: status_pb2.Status, *, code: grpc.StatusCode) -> RpcError:
        """Read a google.rpc.Status."""
        info = error_details_pb2.ErrorInfo()
        violations: tuple[Violation, ...] = ()
        retry_after_s: float | None = None
        quota_subject: str | None = None
        resource: tuple[str, str] | None = None
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        quota, named = error_details_pb2.QuotaFailure(), error_details_pb2.ResourceInfo()
        for detail in status.details:
            if detail.Unpack(bad):
                violations = tuple(Violation(field=v.field, description=v.description) for v in bad.field_violations)
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
            elif detail.Unpack(quota):
                quota_subject = quota.violations[0].subject if quota.violations else None
            elif detail.Unpack(named):
                resource = (named.resource_type, named.resource_name)
            else:
                detail.Unpack(info)
        return cls(
            code=code,
            reason=info.reason,
            domain=info.domain,
            message=status.message,
            metadata=dict(info.metadata),
            violations=violations,
            retry_after_s=retry_after_s,
            quota_subject=quota_subject,
            resource=resource,
        )


def _milliseconds(seconds: float) -> int:
    """Rounded up, at least 0. What a float adds to a whole number of milliseconds is no further millisecond."""
    return max(0, math.ceil(round(seconds * 1000, 3)))
