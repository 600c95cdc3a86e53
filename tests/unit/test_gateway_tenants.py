from __future__ import annotations

import pytest

from gateway.policy.tenants import DEFAULT_TENANT, OTHER_TENANT, Tenants, TenantTerms


def tenants(*, max_tenants: int = 2, trusts_claims: bool = True) -> Tenants:
    """One tenant with terms of its own, and few others."""
    terms = {"gold": TenantTerms(weight=3.0), DEFAULT_TENANT: TenantTerms(weight=0.5, tokens_per_minute=10)}
    return Tenants(terms, trusts_claims=trusts_claims, max_tenants=max_tenants)


def test_a_claim_that_is_not_trusted_is_none() -> None:
    """Whatever the client says, it is the default tenant."""
    assert DEFAULT_TENANT == tenants(trusts_claims=False).resolve("gold", 0.0)


@pytest.mark.parametrize("claim", ["", "a b", "ä", "x" * 65, "a/b", "b'gold'\n"])
def test_a_name_of_no_good_form_is_none(claim: str) -> None:
    """It could not stand in a metric."""
    assert DEFAULT_TENANT == tenants().resolve(claim, 0.0)


def test_names_are_bounded() -> None:
    """Those beyond the bound are one tenant, until others have been silent for long; who has terms is always known."""
    known = tenants()
    assert ["a", "b", OTHER_TENANT, "gold", "a"] == [known.resolve(name, 0.0) for name in ("a", "b", "c", "gold", "a")]
    assert [OTHER_TENANT, "b"] == [known.resolve(name, 599.0) for name in ("c", "b")]
    assert ["c", OTHER_TENANT] == [known.resolve(name, 700.0) for name in ("c", "a")]


def test_who_has_no_terms_has_those_of_the_default() -> None:
    """Weights and quotas alike."""
    known = tenants()
    assert (10, None) == (known.terms("a").tokens_per_minute, known.terms("gold").tokens_per_minute)
    assert [3.0, 0.5, 0.5] == [known.weights.get(name, 1.0) for name in ("gold", "a", DEFAULT_TENANT)]


@pytest.mark.parametrize("terms", [{"weight": 0.0}, {"tokens_per_minute": 0}, {"requests_per_minute": -1}])
def test_terms_have_to_make_sense(terms: dict[str, int]) -> None:
    """Nobody is stopped for good."""
    with pytest.raises(ValueError, match="at least 1"):
        TenantTerms(**terms)
