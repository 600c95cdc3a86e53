from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import DecodeStream
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from worker.engine import EngineFinish, EngineOutput, FinishReason
from worker.prompt_leak import PromptLeak, leaked_text


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    """A tokenizer with a token for each byte and no other, so that characters are split."""
    tokenizer = Tokenizer(BPE({symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text).ids)


def _shown(tokenizer: Tokenizer, prompt: list[int], output: list[int], stop_strings: tuple[str, ...] = ()) -> str:
    """What a client sees, token by token, of what vLLM decodes."""
    stream = DecodeStream(ids=prompt)  # as vLLM's detokenizer
    leak = PromptLeak(leaked_text(tokenizer, prompt), stop_strings)
    shown = ""
    for index, token_id in enumerate(output):
        finish = EngineFinish(reason=FinishReason.LENGTH) if index == len(output) - 1 else None
        clean = leak.clean(EngineOutput(text=stream.step(tokenizer, token_id) or "", finish=finish))
        shown += clean.text
        if clean.finish:
            break
    return shown


def test_an_ordinary_prompt_leaks_nothing(bytewise: Tokenizer) -> None:
    """Whatever characters it has."""
    assert "" == leaked_text(bytewise, _ids(bytewise, "Zürich, 東京"))


@pytest.mark.parametrize("split", [1, 2])
def test_a_character_begun_by_the_prompt_is_shown_whole(bytewise: Tokenizer, split: int) -> None:
    """And the text before it is not."""
    ids = _ids(bytewise, "Tokyo is 東京 in Japan")
    at = len(_ids(bytewise, "Tokyo is ")) + split
    assert "東京 in Japan" == _shown(bytewise, ids[:at], ids[at:])


def test_a_prompt_that_ends_with_the_replacement_character_is_not_shown(bytewise: Tokenizer) -> None:
    """Although it looks as if something were missing."""
    assert " and on" == _shown(
        bytewise, _ids(bytewise, "so it ends \N{REPLACEMENT CHARACTER}"), _ids(bytewise, " and on")
    )


def test_bytes_that_are_no_text_are_not_shown(bytewise: Tokenizer) -> None:
    """Such as a prompt of arbitrary ids."""
    broken = _ids(bytewise, "é")[:1] * 5
    assert "ab" == _shown(bytewise, _ids(bytewise, "x") + broken, _ids(bytewise, "ab"))


def test_stop_strings_are_looked_for_in_the_output_alone(bytewise: Tokenizer) -> None:
    """The prompt may hold them."""
    ids = _ids(bytewise, "one.\ntwo 東 three.\nfour")
    at = len(_ids(bytewise, "one.\ntwo ")) + 1
    assert "東 three" == _shown(bytewise, ids[:at], ids[at:], stop_strings=(".\n",))


def test_what_was_held_back_comes_with_the_end(bytewise: Tokenizer) -> None:
    """When it was no stop string after all."""
    ids = _ids(bytewise, "a 東 three.")
    at = len(_ids(bytewise, "a ")) + 1
    assert "東 three." == _shown(bytewise, ids[:at], ids[at:], stop_strings=(".\n",))
