r"""Compiles constraints with xgrammar as vLLM does, tries them out, and judges finished text. In its own process.

Compiling is not all that a hostile constraint can make expensive: ``(\w+\s?){1,500}`` compiles in a millisecond, and
then takes seconds for each token, in the engine's step, for every stream at once. So what compiles is also tried out:
walked through for a few hundred tokens, as a generation would.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import re2
import xgrammar
from transformers import PreTrainedTokenizerFast

from worker.constraint_limits import regex_options
from worker.engine import Constraint, ConstraintKind

# As many as vLLM compiles with; xgrammar starts them when it compiles, and so after the fork.
COMPILER_THREADS = 8
# A walk is one generation; the walks of a trial share its tokens.
_TRIAL_TOKENS, _WALK_TOKENS = 512, 192
# Processor time. An ordinary constraint takes 0.05 ms a token, and a step of an engine 4 to 20 ms.
_MAX_TOKEN_S, _MAX_TRIAL_S = 0.025, 0.5
_BITS = 32

_ANY_OBJECT = Constraint(kind=ConstraintKind.JSON_SCHEMA, text='{"type": "object"}')


class UnusableConstraintError(Exception):
    """The constraint does not compile, or costs too much. The message says why."""


class ConstraintCompiler:
    """Compiles for one tokenizer. Making one takes seconds."""

    def __init__(self, tokenizer_dir: Path, vocabulary_size: int) -> None:
        """``vocabulary_size`` is the model's, which may be larger than the tokenizer's."""
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir, local_files_only=True)
        self._tokens = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary_size)
        self._compiler = xgrammar.GrammarCompiler(self._tokens, max_threads=COMPILER_THREADS, cache_enabled=False)

    def check(self, constraint: Constraint) -> None:
        """Raises ``UnusableConstraintError``."""
        self._try_out(self._compile(constraint))

    def judge(self, constraint: Constraint, text: str) -> bool:
        """Whether the finished ``text`` has the form, by other means than what the sampling was restricted with."""
        match constraint.kind:
            case ConstraintKind.JSON_SCHEMA:
                return self._judge_schema(constraint, text)
            case ConstraintKind.REGEX:
                return re2.compile(constraint.text, regex_options()).fullmatch(text) is not None
            case ConstraintKind.CHOICE:
                return text in constraint.choices
            case ConstraintKind.GRAMMAR:
                return self._accepts(constraint, text)
            case ConstraintKind.JSON_OBJECT:
                return self._judge_schema(_ANY_OBJECT, text)

    def _judge_schema(self, constraint: Constraint, text: str) -> bool:
        try:
            value = _parse_json(text)
            return value is not _NOT_JSON and bool(_SchemaValidator(json.loads(constraint.text)).is_valid(value))
        except RecursionError:
            return self._accepts(constraint, text)  # nested deeper than Python can follow

    def _accepts(self, constraint: Constraint, text: str) -> bool:
        matcher = xgrammar.GrammarMatcher(self._compile(constraint))
        return bool(matcher.accept_string(text) and matcher.accept_token(self._tokens.stop_token_ids[0]))

    def _compile(self, constraint: Constraint) -> Any:
        try:
            match constraint.kind:
                case ConstraintKind.JSON_SCHEMA:
                    return self._compile_json(constraint.text)
                case ConstraintKind.JSON_OBJECT:
                    return self._compile_json(_ANY_OBJECT.text)
                case ConstraintKind.REGEX:
                    return self._compiler.compile_regex(constraint.text)
                case ConstraintKind.CHOICE:
                    return self._compiler.compile_grammar(_choice_grammar(constraint.choices))
                case ConstraintKind.GRAMMAR:
                    return self._compiler.compile_grammar(constraint.text)
        except (RuntimeError, ValueError) as error:
            raise UnusableConstraintError(f"does not compile: {_first_line(error)}") from error

    def _compile_json(self, schema: str) -> Any:
        # As the engine, whose disable_any_whitespace stands in worker/vllm_settings.py.
        return self._compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"))

    def _try_out(self, grammar: Any) -> None:
        trial = _Trial(grammar, self._tokens)
        tokens_left, walk = _TRIAL_TOKENS, 0
        while tokens_left > 0:
            # Walks that stay with a token find what grows in a loop; random ones find the rest.
            tokens_left -= max(1, trial.walk(min(tokens_left, _WALK_TOKENS), seed=walk, is_sticky=walk % 2 == 0))
            walk += 1


class _Trial:
    """Generates text that a grammar allows, at random, and keeps an eye on what that costs."""

    def __init__(self, grammar: Any, tokens: Any) -> None:
        self._grammar = grammar
        self._stop_tokens = frozenset(tokens.stop_token_ids)
        self._bitmask = xgrammar.allocate_token_bitmask(1, tokens.vocab_size)
        self._words = self._bitmask.numpy().view(np.uint32)[0]
        self._spent_s = 0.0
        self._slow_tokens = 0

    def walk(self, max_tokens: int, *, seed: int, is_sticky: bool) -> int:
        """Returns how many tokens it took. Raises ``UnusableConstraintError``."""
        rng = random.Random(seed)
        matcher = xgrammar.GrammarMatcher(self._grammar)
        last: int | None = None
        for count in range(max_tokens):
            started = time.process_time()
            matcher.fill_next_token_bitmask(self._bitmask)
            self._account(time.process_time() - started)
            token = last if is_sticky and last is not None and self._allows(last) else self._pick(rng)
            if token is None:
                if count == 0:
                    raise UnusableConstraintError("accepts no text that this model can write")
                return count
            started = time.process_time()
            matcher.accept_token(token)
            self._account(time.process_time() - started)
            last = token
        return max_tokens

    def _account(self, spent_s: float) -> None:
        self._spent_s += spent_s
        self._slow_tokens += spent_s > _MAX_TOKEN_S
        # A virtual machine whose processor is lent to another one may count that as ours: once, but not twice.
        if self._slow_tokens > 1 or self._spent_s > _MAX_TRIAL_S:
            raise UnusableConstraintError(
                "takes too long for each token; bound repetitions tighter, and let alternatives differ"
            )

    def _allows(self, token: int) -> bool:
        return bool(self._words[token // _BITS] >> np.uint32(token % _BITS) & np.uint32(1))

    def _pick(self, rng: random.Random) -> int | None:
        """An allowed token, or None where only the end is left."""
        allowed = np.flatnonzero(np.unpackbits(self._words.view(np.uint8), bitorder="little"))
        choices = [int(token) for token in allowed[rng.randrange(max(1, len(allowed))) :][:2]] + allowed[:2].tolist()
        return next((token for token in choices if token not in self._stop_tokens), None)


_NOT_JSON = object()


def _parse_json(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    sys.set_int_max_str_digits(0)  # a number may be as long as the output; this process's time is limited
    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return _NOT_JSON


def _match_pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    del schema
    if validator.is_type(instance, "string") and not re2.compile(pattern, regex_options()).search(instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


# Python's own expressions backtrack; RE2's take time linear in the text.
_SchemaValidator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _match_pattern}
)

_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _choice_grammar(choices: tuple[str, ...]) -> str:
    """What vLLM makes of a list of texts."""
    return "root ::= " + " | ".join(f'"{"".join(map(_escaped, choice))}"' for choice in choices)


def _escaped(character: str) -> str:
    is_control = character < " " or character == "\x7f"
    return _ESCAPES.get(character) or (f"\\u{ord(character):04x}" if is_control else character)


def _first_line(error: Exception) -> str:
    """The message without what xgrammar puts before it: ``[12:00:00] /cpp/grammar.cc:83: message``."""
    message = re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", str(error).strip())
    return message.split("\n", 1)[0][:200] or type(error).__name__
