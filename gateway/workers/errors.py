"""Why a worker cannot be used."""

from __future__ import annotations

from tidegate.rpc.status import RpcError


class UnusableWorkerError(Exception):
    """The worker gets no traffic, or none any more. The message says why, for the log."""


class LostWorkerError(UnusableWorkerError):
    """It was in use, and is not now; as far as anybody knows it may be back at any moment."""


class SilentWorkerError(LostWorkerError):
    """Its reports stay out, though its connection stands as far as anybody knows: it hangs, or is out of reach."""


class WorkerCallError(Exception):
    """A call to a worker failed."""

    def __init__(self, error: RpcError) -> None:
        super().__init__(f"{error.code.name} {error.reason}: {error.message}")
        self.error = error
