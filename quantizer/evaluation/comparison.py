"""Perplexity, KL divergence and top-1 agreement of models with their source, on the same tokens at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from quantizer.evaluation.held_out import Passage

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageScore:
    """Sums over the scored tokens of one passage; nats for ``nll`` and ``kl``."""

    tokens: int
    nll: float
    kl: float
    top1: int
    token_kl: tuple[float, ...]  # of each token


@dataclass(frozen=True, slots=True)
class Scores:
    """One model on one domain, passage by passage."""

    passages: Sequence[PassageScore]

    @property
    def tokens(self) -> int:
        """Scored tokens."""
        return sum(score.tokens for score in self.passages)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log likelihood."""
        mean = sum(score.nll for score in self.passages) / self.tokens
        return math.exp(mean) if mean < math.log(1e30) else math.inf

    @property
    def kl(self) -> float:
        """Mean over tokens of KL(source || model), nats."""
        return sum(score.kl for score in self.passages) / self.tokens

    @property
    def top1(self) -> float:
        """The share of tokens where the source's likeliest token is this model's too."""
        return sum(score.top1 for score in self.passages) / self.tokens

    @property
    def kl_p99(self) -> float:
        """The 99th percentile of KL over tokens."""
        values = sorted(value for score in self.passages for value in score.token_kl)
        return values[min(len(values) - 1, int(0.99 * len(values)))]


def compare(
    source: Any,
    models: Mapping[str, Any],
    passages: Sequence[Passage],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Scores]:
    """Score ``models``, and the source itself as "source". Calls ``advance`` after each passage."""
    scores: dict[str, list[PassageScore]] = {name: [] for name in ("source", *models)}
    for passage in passages:
        expected = _log_probabilities(source, passage)
        scores["source"].append(_score(expected, expected, passage))
        for name, model in models.items():
            scores[name].append(_score(expected, _log_probabilities(model, passage), passage))
        advance()
    return {name: Scores(tuple(found)) for name, found in scores.items()}


def kl_ratio_interval(model: Scores, baseline: Scores, rng: Random) -> tuple[float, float]:
    """The 95 % interval of ``model.kl / baseline.kl``, by resampling passages (both models on the same ones)."""
    pairs = [(one.kl, other.kl) for one, other in zip(model.passages, baseline.passages, strict=True)]
    ratios = []
    for _ in range(_RESAMPLES):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(sum(one for one, _ in drawn) / max(sum(other for _, other in drawn), 1e-12))
    ratios.sort()
    return ratios[int(0.025 * _RESAMPLES)], ratios[int(0.975 * _RESAMPLES) - 1]


def gap_ratio_interval(model: Scores, baseline: Scores, source: Scores, rng: Random) -> tuple[float, float] | None:
    """As ``kl_ratio_interval``, of the perplexity above the source's; None where the baseline has hardly any.

    It is wider: perplexity rises where the source was wrong and falls where it was, by luck, right.
    """
    triples = list(zip(model.passages, baseline.passages, source.passages, strict=True))
    ratios = []
    for _ in range(_RESAMPLES):
        drawn = rng.choices(triples, k=len(triples))
        ours, theirs, least = (Scores([triple[i] for triple in drawn]).perplexity for i in range(3))
        if theirs > least:
            ratios.append((ours - least) / (theirs - least))
    if len(ratios) < 0.99 * _RESAMPLES or not all(map(math.isfinite, ratios)):
        return None
    ratios.sort()
    return ratios[int(0.025 * len(ratios))], ratios[int(0.975 * len(ratios)) - 1]


def _log_probabilities(model: Any, passage: Passage) -> torch.Tensor:
    """float32 [scored tokens, vocabulary]: what stands at each position predicts the next token."""
    ids = torch.tensor([passage.token_ids], device=model.device)
    places = torch.arange(passage.first_scored - 1, len(passage.token_ids) - 1, device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=places).logits[0]
    return logits.float().log_softmax(dim=-1)


def _score(expected: torch.Tensor, actual: torch.Tensor, passage: Passage) -> PassageScore:
    targets = torch.tensor(passage.token_ids[passage.first_scored :], device=actual.device)
    kl = torch.nn.functional.kl_div(actual, expected, log_target=True, reduction="none").sum(dim=-1)
    return PassageScore(
        tokens=len(targets),
        nll=-float(actual.gather(1, targets.unsqueeze(1)).double().sum()),
        kl=float(kl.double().sum()),
        top1=int((actual.argmax(dim=-1) == expected.argmax(dim=-1)).sum()),
        token_kl=tuple(kl.tolist()),
    )
