from __future__ import annotations

from gateway.policy.expected_output import ExpectedOutput, ReportedOutput

_REPORTED = ReportedOutput(quantile=0.5, usual_tokens=None)


def _learn(expected: ExpectedOutput, output_tokens: int, times: int) -> None:
    for _ in range(times):
        expected.learn(model="m", tenant="t", prompt_tokens=100, output_tokens=output_tokens)


def _expect(expected: ExpectedOutput, tenant: str = "t") -> int:
    return expected.expect(model="m", tenant=tenant, prompt_tokens=100, max_output_tokens=1000, reported=_REPORTED)


def test_few_outputs_say_nothing() -> None:
    """Until there are twenty, everything has to be expected; asked after each, the answer comes with the twentieth."""
    expected, answers = ExpectedOutput(), []
    for _ in range(20):
        answers.append(_expect(expected))
        _learn(expected, 10, 1)
    assert [1000] * 20 == answers
    assert 10 == _expect(expected)


def test_expectation_follows_the_outputs() -> None:
    """As soon as a thirty-second of the outputs is news, whoever asks is told of it, and so are other tenants."""
    expected = ExpectedOutput()
    _learn(expected, 10, 320)
    assert 10 == _expect(expected)
    _learn(expected, 200, 320)
    _expect(expected)
    _learn(expected, 200, 20)
    answers = _expect(expected), _expect(expected, "another")
    assert all(196 <= answer <= 204 for answer in answers)
