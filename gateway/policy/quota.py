"""What tenants may use per minute: reserved when a request comes, settled when it is over.

For a request its prompt and the output that is expected of it are taken, and set right by what it has used. A tenant
can overdraw by asking for little and using much, but not for long; and it does not pay for output that it did not get.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.policy.bucket import Bucket, Level
from gateway.policy.tenants import Tenants

_REQUESTS = "requests_per_minute"
_LIMITS = (_REQUESTS, "tokens_per_minute")
# Tenants whose buckets are kept; those longest away begin with full ones.
_MAX_TENANTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRefusal:
    """A limit that a request meets. ``passing`` is the most that would have passed; ``retry_after_s`` None: never."""

    limit: str
    per_minute: float
    needed: int
    passing: int
    retry_after_s: float | None


@dataclass(slots=True, eq=False, kw_only=True, init=False)
class Reservation:
    """What one request has taken from its tenant's buckets. ``settle`` it once."""

    tenant: str
    tokens: int
    is_settled: bool = False

    def __init__(self, *, tenant: str, tokens: int, is_settled: bool = False) -> None:
        self.tenant = tenant
        self.tokens = tokens
        self.is_settled = is_settled


def judge_quota(levels: Mapping[str, Level], *, tokens: int) -> QuotaRefusal | None:
    """Whether a request of ``tokens`` meets a limit."""
    for limit, level in levels.items():
        needed = 1 if limit == _REQUESTS else tokens
        wait_s = level.wait_s(needed)
        if wait_s != 0.0:
            return QuotaRefusal(
                limit=limit,
                per_minute=level.per_minute,
                needed=needed,
                passing=max(0, int(level.left)),
                retry_after_s=wait_s,
            )
    return None


class Quotas:
    """The buckets of all tenants."""

    def __init__(self, tenants: Tenants, *, gateways: int = 1) -> None:
        """``gateways`` share every quota evenly."""
        self._tenants = tenants
        self._gateways = gateways
        self._buckets: OrderedDict[str, tuple[Bucket | None, Bucket | None]] = OrderedDict()  # requests, tokens

    def levels(self, tenant: str, now: float) -> Mapping[str, Level]:
        """What the tenant has left, by the name of the limit; nothing where it has none."""
        buckets = zip(_LIMITS, self._buckets_of(tenant, now), strict=True)
        return {
            limit: Level(per_minute=bucket.per_minute, left=bucket.level(now))
            for limit, bucket in buckets
            if bucket is not None
        }

    def reserve(self, tenant: str, *, tokens: int, now: float) -> Reservation | QuotaRefusal:
        """Take one request and so many ``tokens``, or nothing at all."""
        requests_bucket, tokens_bucket = self._buckets_of(tenant, now)
        if requests_bucket is None and tokens_bucket is None:
            return Reservation(tenant=tenant, tokens=tokens)
        refusal = judge_quota(self.levels(tenant, now), tokens=tokens)
        if refusal is not None:
            return refusal
        if requests_bucket is not None:
            requests_bucket.take(1, now)
        if tokens_bucket is not None:
            tokens_bucket.take(tokens, now)
        return Reservation(tenant=tenant, tokens=tokens)

    def settle(self, reservation: Reservation, *, used_tokens: int | None, now: float) -> None:
        """The request is over and has used so many tokens; None: it was not served, and all is given back."""
        if reservation.is_settled:
            raise ValueError("a reservation is settled once")
        reservation.is_settled = True
        requests_bucket, tokens_bucket = self._buckets_of(reservation.tenant, now)
        if requests_bucket is not None and used_tokens is None:
            requests_bucket.take(-1, now)
        if tokens_bucket is not None:
            tokens_bucket.take((used_tokens or 0) - reservation.tokens, now)

    def _buckets_of(self, tenant: str, now: float) -> tuple[Bucket | None, Bucket | None]:
        buckets = self._buckets.get(tenant)
        if buckets is None:
            terms = self._tenants.terms(tenant)
            buckets = self._bucket(terms.requests_per_minute, now), self._bucket(terms.tokens_per_minute, now)
            if buckets[0] is None and buckets[1] is None:
                return buckets
            self._buckets[tenant] = buckets
            if len(self._buckets) > _MAX_TENANTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(tenant)
        return buckets

    def _bucket(self, per_minute: int | None, now: float) -> Bucket | None:
        return None if per_minute is None else Bucket(per_minute / self._gateways, now)
