"""Whom a request belongs to, and what was agreed with them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

DEFAULT_TENANT = "default"
# All that come when more are at work than can be told apart.
OTHER_TENANT = "other"

_NAME_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}")
# A name that was not heard for so long may give its place to another one.
_IDLE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTerms:
    """What a tenant may have: a share beside those of others, and per minute no more than so much. None: no limit."""

    weight: float = 1.0
    tokens_per_minute: int | None = None
    requests_per_minute: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would stop a tenant for good; to do that is the business of who lets calls in."""
        limits = (self.tokens_per_minute, self.requests_per_minute)
        if not self.weight > 0 or any(limit is not None and limit < 1 for limit in limits):
            raise ValueError(f"weights are above 0 and limits at least 1: {self}")


class Tenants:
    """The tenants that are told apart. Those without terms of their own have the terms of ``DEFAULT_TENANT``."""

    def __init__(self, terms: Mapping[str, TenantTerms], *, trusts_claims: bool, max_tenants: int) -> None:
        """Without ``trusts_claims`` everybody is ``DEFAULT_TENANT``. ``max_tenants`` are those without own terms."""
        self.weights: Mapping[str, float] = _Weights(self)
        self.named = tuple(terms)
        self._terms = dict(terms)
        self._default = self._terms.setdefault(DEFAULT_TENANT, TenantTerms())
        self._trusts_claims = trusts_claims
        self._max_tenants = max_tenants
        self._heard_at: OrderedDict[str, float] = OrderedDict()

    def resolve(self, claim: str, now: float) -> str:
        """The tenant of a request that comes under the name ``claim``. A name of no good form is none."""
        if not self._trusts_claims or _NAME_FORM.fullmatch(claim) is None:
            return DEFAULT_TENANT
        if claim in self._terms:
            return claim
        if claim not in self._heard_at and len(self._heard_at) >= self._max_tenants:
            oldest, heard_at = next(iter(self._heard_at.items()))
            if now - heard_at < _IDLE_S:
                return OTHER_TENANT
            del self._heard_at[oldest]
        self._heard_at[claim] = now
        self._heard_at.move_to_end(claim)
        return claim

    def terms(self, tenant: str) -> TenantTerms:
        """What was agreed with ``tenant``."""
        return self._terms.get(tenant, self._default)


class _Weights(Mapping[str, float]):
    """The shares of all tenants there can be."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    def __getitem__(self, tenant: str) -> float:
        return self._tenants.terms(tenant).weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._tenants.named)

    def __len__(self) -> int:
        return len(self._tenants.named)
