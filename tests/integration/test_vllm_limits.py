"""No accepted request ends the engine: requests at the limits of every field of generation.proto.

150 of them in an ordinary run; TIDEGATE_FUZZ_REQUESTS=2000 for all.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest

from tests.fakes.real_vllm import CONTEXT_LENGTH, RealVllm
from worker.engine import Constraint, ConstraintKind, EngineError, GenerationJob

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

_REQUESTS = int(os.environ.get("TIDEGATE_FUZZ_REQUESTS", "150"))
_AT_ONCE = 32
_TINY = 1.401298464324817e-45  # the smallest float of the wire
_MAX_INT64 = 2**63 - 1
_END_TOKEN = 2

_CONSTRAINTS = (
    Constraint(kind=ConstraintKind.JSON_OBJECT),
    Constraint(kind=ConstraintKind.JSON_SCHEMA, text='{"type":"array","items":{"type":"integer"},"minItems":1}'),
    Constraint(kind=ConstraintKind.REGEX, text="[a-c]{3,9}"),
    Constraint(kind=ConstraintKind.CHOICE, choices=("yes", "no", "\N{CAT}\n\"'\\")),
    Constraint(kind=ConstraintKind.GRAMMAR, text='root ::= "(" root ")" | [0-9]'),
)


def _job(vllm: RealVllm, rng: random.Random) -> GenerationJob:
    vocabulary = vllm.facts.vocabulary_size
    # A long prompt costs seconds; those that share a prefix cost less.
    length = rng.choices((1, 2, rng.randint(3, 40), 128, CONTEXT_LENGTH - 1), (6, 6, 80, 6, 2))[0]
    token = rng.choice((0, 1, 2, 16, 17, vocabulary - 1, rng.randrange(vocabulary)))
    prompt = [token] * length if length > 128 or rng.random() < 0.2 else rng.choices(range(vocabulary), k=length)
    is_longest = rng.random() < 0.05
    output_tokens = CONTEXT_LENGTH - length if is_longest else rng.choices((1, 2, rng.randint(3, 12)), (3, 2, 40))[0]
    sampling: dict[str, Any] = {
        "max_output_tokens": output_tokens,
        "min_output_tokens": rng.choice((0, 0, 1, min(output_tokens, 12))),
        "temperature": rng.choice((0.0, _TINY, 0.001, 0.7, 1.0, 2.0)),
        "top_p": rng.choice((_TINY, 0.5, 1.0)),
        "top_k": rng.choice((0, 1, 1_024)),
        "min_p": rng.choice((0.0, _TINY, 0.5, 1.0)),
        "presence_penalty": rng.choice((-2.0, 0.0, 2.0)),
        "frequency_penalty": rng.choice((-2.0, 0.0, 2.0)),
        "repetition_penalty": rng.choice((_TINY, 0.01, 1.0, 2.0)),
        "seed": rng.choice((None, None, 0, -1, _MAX_INT64, -_MAX_INT64 - 1, rng.randrange(_MAX_INT64))),
    }
    if rng.random() < 0.3:
        alphabet = "ae \n\0\u0301\N{CAT}<|"
        sampling["stop_strings"] = tuple(
            "".join(rng.choices(alphabet, k=rng.choice((1, 2, 256)))) for _ in range(rng.choice((1, 16)))
        )
    if rng.random() < 0.3:
        sampling["stop_token_ids"] = tuple(rng.choices(range(vocabulary), k=rng.choice((1, 64))))
    if rng.random() < 0.3:
        ids = rng.sample(range(vocabulary), rng.choice((1, 300)))
        sampling["logit_bias"] = {token_id: rng.choice((-100.0, 100.0, 0.0, _TINY)) for token_id in ids}
        if rng.random() < 0.2:
            sampling["logit_bias"][_END_TOKEN] = -100.0
    if is_longest:  # in name; ten minutes of it would test nothing more
        sampling |= {"logit_bias": {_END_TOKEN: 100.0}, "min_output_tokens": 0, "repetition_penalty": 1.0}
    return vllm.job(
        prompt,
        constraint=rng.choice(_CONSTRAINTS) if rng.random() < 0.15 and not is_longest else None,
        logprobs=rng.choice((None, None, 0, 1, 20)),
        prompt_logprobs=rng.choice((0, 20)) if rng.random() < 0.1 else None,
        **sampling,
    )


@pytest.mark.timeout(3_600)  # for the long form
async def test_requests_at_the_limits_do_not_end_the_engine(vllm: RealVllm) -> None:
    """Each one finishes, or fails by itself; after every batch the engine still answers right."""
    rng = random.Random(20_260_101)
    finished = failed = 0

    async def one(job: GenerationJob) -> None:
        nonlocal finished, failed
        try:
            await vllm.answer(job)
            finished += 1
        except EngineError:
            failed += 1

    for start in range(0, _REQUESTS, _AT_ONCE):
        jobs = [_job(vllm, rng) for _ in range(min(_AT_ONCE, _REQUESTS - start))]
        await asyncio.gather(*map(one, jobs))
        assert await vllm.is_well()
    await vllm.until_idle()
    assert (_REQUESTS, 0) == (finished, failed)
