"""Errors for a person at a terminal: what happened, what to do, and with which code the command exits."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from grpc import StatusCode

from tidegate.client.errors import TidegateError


class ExitCode(IntEnum):
    """Exit codes of every ``tidegate`` command. 2 is the shell convention for a wrong command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    BUSY = 4
    UNAVAILABLE = 5
    DEADLINE = 6
    SERVER_DEFECT = 7
    INTERRUPTED = 130


_EXIT_CODES = {
    StatusCode.INVALID_ARGUMENT: ExitCode.REFUSED,
    StatusCode.NOT_FOUND: ExitCode.REFUSED,
    StatusCode.UNAUTHENTICATED: ExitCode.REFUSED,
    StatusCode.PERMISSION_DENIED: ExitCode.REFUSED,
    StatusCode.FAILED_PRECONDITION: ExitCode.REFUSED,
    StatusCode.ABORTED: ExitCode.FAILED,  # it was not read here for too long
    StatusCode.UNIMPLEMENTED: ExitCode.UNAVAILABLE,  # no gateway answers there
    StatusCode.RESOURCE_EXHAUSTED: ExitCode.BUSY,
    StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED: ExitCode.DEADLINE,
}

# By ErrorReason, in the words of this command; docs/errors.md has the words for programs.
REMEDIES = {
    "INVALID_REQUEST": "Correct what is named above.",
    "CHAT_TEMPLATE_REJECTED": "This model's template does not know such a conversation; try without --system.",
    "CONTEXT_LENGTH_EXCEEDED": "Shorten the conversation (/reset) or lower --max-output-tokens.",
    "KV_POOL_EXCEEDED": "Shorten the conversation (/reset) or lower --max-output-tokens; waiting does not help.",
    "CONSTRAINT_REJECTED": "Simplify the constraint.",
    "MODEL_NOT_FOUND": "`tidegate models` lists what is served.",
    "ADMISSION_QUEUE_FULL": "The gateway is full; try again later.",
    "KV_EXHAUSTED": "No worker has memory for the request now; try again later.",
    "NO_WORKER_AVAILABLE": "The gateway is up but has no worker: look at the worker's log, or wait for it to load.",
    "DRAINING": "The gateway is shutting down; try again.",
    "STREAM_INTERRUPTED": "The worker was lost; what was printed is valid. Ask again.",
    "DEADLINE_EXCEEDED": "Give more time (--timeout) or lower --max-output-tokens.",
    "DEADLINE_TOO_SHORT": "Give more time (--timeout) or lower --max-output-tokens.",
    "CONSTRAINT_VIOLATED": "A defect of the server; report it with the response id.",
    "ENGINE_ERROR": "A defect of the server; report it with the response id.",
    "WAIT_TOO_LONG": "Everything is busy; try again later, or give more time (--timeout).",
    "QUOTA_EXCEEDED": "Your quota is used up for now; try again later.",
    "EVICTED": "More important requests came first; try again later.",
    "REQUEST_QUARANTINED": "This very request was there when engines died; change it, or wait.",
    "RESUME_TOKEN_INVALID": "Ask again; the answer cannot be resumed.",
    "RESUME_TOKEN_EXPIRED": "Ask again; the answer broke off too long ago to be resumed.",
    "RESUME_UNSUPPORTED": "Ask again; this gateway does not resume answers.",
    "CLIENT_TOO_SLOW": "The output was not read for too long; read it faster, or into a file.",
    "INTERNAL": "A defect of the server; its log tells more.",
}

_REMEDIES_WITHOUT_REASON = {
    StatusCode.UNAVAILABLE: "Is a gateway running there? `tidegate serve` starts one; --target names another.",
    StatusCode.DEADLINE_EXCEEDED: "Nothing answered in time; `tidegate doctor` finds out why.",
    StatusCode.RESOURCE_EXHAUSTED: "Where the message is too large waiting does not help: 4 MiB are the most.",
    StatusCode.UNIMPLEMENTED: "Something answers there, but it is not a Tidegate gateway.",
}


_REMEDY_BEYOND_QUOTA = "Waiting does not help: shorten the prompt, lower --max-output-tokens, or have the quota raised."


def _is_beyond_quota(error: TidegateError) -> bool:
    """Whether the request is larger than the whole quota: then there is no time at which it would not be."""
    return error.reason == "QUOTA_EXCEEDED" and error.retry_after_s is None


def exit_code(error: TidegateError) -> ExitCode:
    """The exit code for a failed call."""
    if _is_beyond_quota(error):
        return ExitCode.REFUSED
    return _EXIT_CODES.get(error.code, ExitCode.SERVER_DEFECT)


def explain(error: TidegateError) -> Iterator[str]:
    """Lines for a person: reason and message, invalid fields that it does not name, when to retry, and the remedy."""
    yield f"{error.reason or error.code.name}: {error.error.message}"
    for violation in error.violations:
        line = f"{violation.field}: {violation.description}"
        if line not in error.error.message:
            yield f"  {line}"
    if error.retry_after_s is not None:
        yield f"  The server suggests to retry in {error.retry_after_s:.1f} s."
    remedy = REMEDIES.get(error.reason) or _REMEDIES_WITHOUT_REASON.get(error.code)
    if _is_beyond_quota(error):
        remedy = _REMEDY_BEYOND_QUOTA
    if remedy:
        yield f"  {remedy}"


def as_json(error: TidegateError) -> dict[str, Any]:
    """The error as one JSON object, for ``--json``."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.error.message,
        "metadata": dict(error.metadata),
        "violations": [{"field": v.field, "description": v.description} for v in error.violations],
        "retry_after_s": error.retry_after_s,
    }
