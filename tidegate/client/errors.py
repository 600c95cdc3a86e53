"""The one exception that calls of this client raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc

from tidegate.rpc.status import RpcError, Violation


class TidegateError(Exception):
    """A call failed, after the retries that made sense. ``docs/errors.md`` lists the reasons."""

    def __init__(self, error: RpcError) -> None:
        """``error`` is the failure of the last attempt."""
        super().__init__(f"{error.reason or error.code.name}: {error.message}")
        self.error = error

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        return self.error.code

    @property
    def reason(self) -> str:
        """A name of ``ErrorReason`` without its prefix; empty when something other than Tidegate answered."""
        return self.error.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        """The numbers and names of the message, for programs."""
        return self.error.metadata

    @property
    def violations(self) -> Sequence[Violation]:
        """Every invalid field of the request."""
        return self.error.violations

    @property
    def retry_after_s(self) -> float | None:
        """When a new attempt may succeed; None where the server does not say."""
        return self.error.retry_after_s
