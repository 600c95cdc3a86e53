"""Resume tokens: with one a client goes on with its answer on any replica, after its connection or gateway was lost.

A gateway keeps nothing for it: the client has the token ids, and the token proves that this deployment began to answer
this very request of this tenant. It is a JSON Web Token (HS256) that holds a digest, a name and a time, and no content.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from gateway.errors import InvalidRequestError, ResumeTokenExpiredError, ResumeTokenInvalidError, ResumeUnsupportedError
from gateway.request import ValidRequest
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.status import Violation

_ALGORITHM = "HS256"
_FIELD = "resume.token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What the client has of the generation that it resumes."""

    token_ids: tuple[int, ...]
    text_bytes: int


class ResumeTokens:
    """Signs and checks them. The first key signs; all of them are accepted, so that keys can be changed."""

    def __init__(self, keys: Sequence[bytes], *, lifetime_s: float, clock: Callable[[], float] = time.time) -> None:
        """Without ``keys`` no tokens are given out. ``clock`` is the time of day, which replicas share."""
        self._keys = tuple(keys)
        self._lifetime_s = lifetime_s
        self._clock = clock

    @classmethod
    def from_file(cls, path: Path | None, *, lifetime_s: float) -> ResumeTokens:
        """Read a key from each line of ``path``, if there is one. The settings have checked it."""
        keys = [line.strip() for line in path.read_bytes().splitlines() if line.strip()] if path else []
        return cls(keys, lifetime_s=lifetime_s)

    def issue(self, request: inference_service_pb2.GenerateRequest, *, tenant: str) -> str:
        """A token for ``request``; empty unless it asks for one and this deployment gives them out."""
        if not self._keys or not request.output.include_resume_token:
            return ""
        claims = {"exp": int(self._clock() + self._lifetime_s), "req": _digest(request), "ten": tenant}
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM)

    def check(
        self, request: inference_service_pb2.GenerateRequest, valid: ValidRequest, *, tenant: str
    ) -> Resumed | None:
        """What ``request`` resumes; None when it begins. Raises ``GatewayError``."""
        if not request.HasField("resume"):
            return None
        if not self._keys:
            raise ResumeUnsupportedError("this deployment offers no resume tokens")
        point = request.resume
        if violations := _violations(point, valid):
            raise InvalidRequestError(violations)
        claims: Any = self._claims(point.token)
        if (claims.get("req"), claims.get("ten")) != (_digest(request), tenant):
            description = "belongs to another request or tenant"
            raise ResumeTokenInvalidError(
                f"{_FIELD}: {description}", violations=[Violation(field=_FIELD, description=description)]
            )
        if claims.get("exp", 0) < self._clock():
            raise ResumeTokenExpiredError("the resume token has expired")
        return Resumed(token_ids=tuple(point.token_ids), text_bytes=point.text_byte_count)

    def _claims(self, token: str) -> dict[str, object]:
        for key in self._keys:
            try:
                # The time is checked by our own clock.
                claims: dict[str, object] = jwt.decode(
                    token, key, algorithms=[_ALGORITHM], options={"verify_exp": False, "require": ["exp"]}
                )
            except jwt.InvalidTokenError:
                continue
            return claims
        description = "is not one of this deployment's"
        raise ResumeTokenInvalidError(
            f"{_FIELD}: {description}", violations=[Violation(field=_FIELD, description=description)]
        )


def _violations(point: generation_pb2.ResumePoint, valid: ValidRequest) -> list[Violation]:
    violations = []
    ids, vocabulary_size = point.token_ids, valid.model.vocabulary_size
    if not point.token:
        violations.append(Violation(field=_FIELD, description="is required"))
    if not ids:
        violations.append(Violation(field="resume.token_ids", description="is empty; begin anew without resume"))
    elif min(ids) < 0 or max(ids) >= vocabulary_size:
        description = f"holds ids that are not in the vocabulary of {vocabulary_size}"
        violations.append(Violation(field="resume.token_ids", description=description))
    if point.text_byte_count < 0:
        violations.append(Violation(field="resume.text_byte_count", description="has to be at least 0"))
    return violations


def _digest(request: inference_service_pb2.GenerateRequest) -> str:
    bare = inference_service_pb2.GenerateRequest()
    bare.CopyFrom(request)
    bare.ClearField("resume")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
