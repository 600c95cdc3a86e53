"""The checker with its real process and the real compiler, without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from worker.constraints import ConstraintChecker, ConstraintRejectedError
from worker.engine import Constraint, ConstraintKind

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MODEL = Path(__file__).parents[2] / "worker" / "sim_model"
_VOCABULARY_SIZE = 768
K = ConstraintKind

_PERSON = Constraint(
    kind=K.JSON_SCHEMA,
    text='{"type":"object","properties":{"name":{"type":"string","pattern":"^[a-z]+$"},"age":{"type":"integer"}},'
    '"required":["name","age"],"additionalProperties":false}',
)
_SUM = Constraint(kind=K.GRAMMAR, text='root ::= number ("+" number)*\nnumber ::= [0-9]+')
_TREE = Constraint(kind=K.JSON_SCHEMA, text='{"type": "array", "items": {"$ref": "#"}}')


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def checker() -> AsyncIterator[ConstraintChecker]:
    """One process for all tests of this file: it takes seconds to load the compiler."""
    checker = ConstraintChecker(_MODEL, _VOCABULARY_SIZE)
    checker.start()
    yield checker
    await checker.close()


@pytest.mark.parametrize("constraint", [_PERSON, _SUM, _TREE, Constraint(kind=K.JSON_OBJECT)], ids=lambda c: c.kind)
async def test_an_ordinary_constraint_is_accepted(checker: ConstraintChecker, constraint: Constraint) -> None:
    """And again from memory."""
    await checker.check(constraint)
    await checker.check(constraint)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        pytest.param(Constraint(kind=K.REGEX, text="(?=a)b"), "RE2", id="bounds"),
        pytest.param(Constraint(kind=K.GRAMMAR, text="root ::= x"), 'Rule "x" is not defined', id="compiler"),
        pytest.param(Constraint(kind=K.GRAMMAR, text="root ::= root"), "no text", id="nothing to write"),
        pytest.param(Constraint(kind=K.REGEX, text="((a*)*)*b"), "for each token", id="trial"),
    ],
)
async def test_a_refusal_names_field_and_reason(
    checker: ConstraintChecker, constraint: Constraint, expected: str
) -> None:
    """Whichever stage refuses it."""
    with pytest.raises(ConstraintRejectedError) as refusal:
        await checker.check(constraint)
    assert f"constraint.{constraint.kind.value}" == refusal.value.field
    assert expected in refusal.value.description


async def test_many_checks_at_once_do_not_mix(checker: ConstraintChecker) -> None:
    """Each caller gets the answer to its own constraint, and equal ones share a check."""
    good = [Constraint(kind=K.REGEX, text=f"a{{{count}}}") for count in range(1, 9)]
    bad = [Constraint(kind=K.GRAMMAR, text=f"root ::= missing{count}") for count in range(8)]
    checks = [checker.check(constraint) for constraint in (good + bad) * 2]
    results = await asyncio.gather(*checks, return_exceptions=True)
    expected = ([type(None)] * 8 + [ConstraintRejectedError] * 8) * 2
    assert expected == [type(result) for result in results]


async def test_a_check_whose_caller_has_gone_ends_by_itself(checker: ConstraintChecker) -> None:
    """Its answer is of use to the next."""
    constraint = Constraint(kind=K.REGEX, text="gone+")
    caller = asyncio.create_task(checker.check(constraint))
    await asyncio.sleep(0)
    caller.cancel()
    await checker.check(constraint)


@pytest.mark.parametrize(
    ("constraint", "text", "expected"),
    [
        pytest.param(_PERSON, '{"name":"ada","age":36}', True, id="schema"),
        pytest.param(_PERSON, '{"name":"Ada","age":36}', False, id="pattern"),
        pytest.param(_PERSON, '{"name":"ada"}', False, id="required"),
        pytest.param(_PERSON, '{"name":"ada","age":36', False, id="cut"),
        pytest.param(_TREE, "[" * 5_000 + "]" * 5_000, True, id="deeper than Python recurses"),
        pytest.param(Constraint(kind=K.REGEX, text="a+b"), "aab", True, id="regex"),
        pytest.param(Constraint(kind=K.REGEX, text="a+b"), "aabb", False, id="regex, whole text"),
        pytest.param(Constraint(kind=K.CHOICE, choices=("yes", "no")), "yes", True, id="choice"),
        pytest.param(Constraint(kind=K.CHOICE, choices=("yes", "no")), "yes ", False, id="no choice"),
        pytest.param(_SUM, "12+3", True, id="grammar"),
        pytest.param(_SUM, "12+", False, id="grammar, cut"),
        pytest.param(_SUM, "12-3", False, id="not in the grammar"),
        pytest.param(Constraint(kind=K.JSON_OBJECT), '{"a":[1,2]}', True, id="object"),
        pytest.param(Constraint(kind=K.JSON_OBJECT), "[1]", False, id="array"),
        pytest.param(Constraint(kind=K.JSON_OBJECT), '{"a":NaN}', False, id="NaN"),
        pytest.param(Constraint(kind=K.JSON_OBJECT), '{"a":' + "9" * 10_000 + "}", True, id="long number"),
    ],
)
async def test_the_verdict_on_a_text(
    checker: ConstraintChecker,
    constraint: Constraint,
    text: str,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """By jsonschema, RE2, membership and the grammar, of the whole text."""
    assert expected is await checker.verdict(constraint, text)


async def test_an_output_that_cannot_be_judged_is_the_constraints_fault(checker: ConstraintChecker) -> None:
    """Here 2**40 ways to read it, none of which fits."""
    pair = {"type": "array", "prefixItems": [{"$ref": "#"}, {"const": 1}], "minItems": 2}
    other = pair | {"prefixItems": [{"$ref": "#"}, {"const": 2}]}
    schema = str({"anyOf": [{"type": "null"}, pair, other]}).replace("'", '"')
    text = "[" * 40 + "null" + ",3]" * 40
    with pytest.raises(ConstraintRejectedError):
        await checker.verdict(Constraint(kind=K.JSON_SCHEMA, text=schema), text)


async def test_the_process_is_started_again_when_it_has_died() -> None:
    """Checks that were under way are refused, later ones work."""
    checker = ConstraintChecker(_MODEL, _VOCABULARY_SIZE)
    await checker.check(_SUM)
    nursery = checker._process._nursery
    assert nursery is not None
    nursery.result()._process.kill()
    await nursery.result()._process.wait()
    await nursery.result()._reading
    await checker.check(_PERSON)
    await checker.close()
