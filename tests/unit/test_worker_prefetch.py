from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import worker
from tests.fakes.engine_outputs import engine_outputs
from tests.fakes.feeds import wide_feed
from worker.engine import GenerationJob, Sampling
from worker.frequent import Frequent
from worker.hot_prefixes import HotPrefixes
from worker.ledger import Capacity, Ledger
from worker.output_lengths import OutputLengths
from worker.prefetch import Prefetcher
from worker.prefix import shareable_names
from worker.prefix_file import read_prefix_file
from worker.sim_engine import SimEngine
from worker.sim_language import SimLanguage
from worker.sim_profile import load_profile

_TOKENIZER = (Path(worker.__file__).parent / "sim_model" / "tokenizer.json").read_bytes()
_LANGUAGE = SimLanguage(_TOKENIZER, seed=0, mean_output_tokens=None)
_SYSTEM = tuple(range(2_000))


class _Prefixes(HotPrefixes):
    """Of a pool of 1,000 blocks of 16 tokens, with fresh endings for the prompts that it is told of."""

    def __init__(self, *, max_blocks: int = 250) -> None:
        super().__init__(block_size=16, total_blocks=1_000, max_blocks=max_blocks)
        self._fresh = 1_000_000

    def ask(self, prefix: tuple[int, ...], *, times: int = 1, blocks_filled: int = 0) -> None:
        for _ in range(times):
            self._fresh += 1
            prompt = [*prefix, *([self._fresh] * 100)]
            self.note(prompt, shareable_names(prompt, 16), blocks_filled=blocks_filled)

    @property
    def lengths(self) -> list[int]:
        return sorted(len(prefix.names) * 16 for prefix in self.kept)


def test_what_prompts_have_in_common_is_kept_to_the_block() -> None:
    """Neither less than all that is common, nor anything of what follows."""
    prefixes = _Prefixes()

    prefixes.ask(_SYSTEM, times=10)

    assert [2_000] == prefixes.lengths


def test_rare_and_short_prefixes_are_not_kept() -> None:
    """Three times is not often; and below 128 tokens there is little to gain."""
    prefixes = _Prefixes()

    prefixes.ask(_SYSTEM, times=3)
    prefixes.ask(_SYSTEM[500:600], times=100)

    assert [] == prefixes.lengths


def test_prefixes_stay_inside_their_share_of_the_pool() -> None:
    """The ones that save least give way; those that an operator gave stay."""
    prefixes = _Prefixes(max_blocks=30)
    prefixes.give(range(5_000, 5_160))
    prefixes.ask(_SYSTEM[:160], times=10)
    prefixes.ask(_SYSTEM[320:480], times=20)

    prefixes.ask(_SYSTEM[640:800], times=15)

    assert {5_000, 320, 640} == {prefix.token_ids[0] for prefix in prefixes.kept}
    with pytest.raises(ValueError, match="more than 30 blocks"):
        prefixes.give(_SYSTEM)


def test_a_prefix_is_due_when_others_have_filled_half_of_the_pool_since() -> None:
    """And not while it is in use."""
    prefixes = _Prefixes()
    prefixes.ask(_SYSTEM, times=10, blocks_filled=100)
    assert [] == prefixes.due(blocks_filled=600)
    assert [2_000] == [len(prefix.names) * 16 for prefix in prefixes.due(blocks_filled=601)]

    prefixes.ask(_SYSTEM, blocks_filled=601)

    assert [] == prefixes.due(blocks_filled=601)


def test_prefixes_that_nobody_asks_for_any_more_are_dropped() -> None:
    """Thousands of other prompts later."""
    prefixes = _Prefixes()
    prefixes.ask(_SYSTEM, times=10)
    prefixes.ask((), times=12_000)

    assert [] == prefixes.due(blocks_filled=10_000)
    assert [] == prefixes.kept


def test_frequent_items_are_never_lost_and_never_overcounted() -> None:
    """Whatever comes between them."""
    frequent = Frequent(size=100, half_life=10**9)
    rng = random.Random(1)
    for index in range(20_000):
        frequent.add([rng.randrange(10**9), -1] if index % 10 == 0 else [rng.randrange(10**9)])

    assert 1_000 < frequent.count(-1) <= 2_000


class _Pauses:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self._asleep, self._wake = asyncio.Event(), asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self._asleep.set()
        await self._wake.wait()
        self._wake.clear()

    async def go_on(self) -> None:
        """Let a pause pass, and what is done after it, until the next one begins."""
        await self._asleep.wait()
        self._asleep.clear()
        self._wake.set()
        await self._asleep.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    engine: SimEngine
    ledger: Ledger
    prefetcher: Prefetcher
    pauses: _Pauses

    async def cached_tokens(self) -> int:
        """What the cache holds of a prompt that begins with the prefix."""
        prompt = [*_SYSTEM, *range(50)]
        job = GenerationJob(job_id="job", prompt_token_ids=prompt, sampling=Sampling(max_output_tokens=1))
        return [output.cached_prompt_tokens async for output in engine_outputs(self.engine, job)][-1]

    @property
    def is_due(self) -> bool:
        return bool(self.prefetcher.prefixes.due(blocks_filled=self.prefetcher.blocks_filled))


@pytest.fixture
async def running() -> AsyncIterator[_Running]:
    """A sim engine, a hundred times as fast as the real one, with a prefix to keep."""
    engine, pauses = SimEngine(load_profile("h200-llama3-8b-awq"), _LANGUAGE, time_scale=0.01), _Pauses()
    facts = await engine.start()
    capacity = Capacity(total_blocks=facts.total_blocks, block_size=facts.block_size, max_running_requests=256)
    ledger = Ledger(capacity, OutputLengths(quantile=0.7), wide_feed())
    prefixes = HotPrefixes(block_size=facts.block_size, total_blocks=facts.total_blocks, max_blocks=1_000)
    prefixes.give(_SYSTEM)
    prefetcher = Prefetcher(engine, facts, ledger, prefixes, pauses.sleep)
    task = asyncio.create_task(prefetcher.run())
    yield _Running(engine=engine, ledger=ledger, prefetcher=prefetcher, pauses=pauses)
    task.cancel()
    await engine.stop()


async def test_given_prefix_is_in_the_cache_before_its_first_request(running: _Running) -> None:
    """All of its blocks are."""
    await running.prefetcher.prefill_all()

    assert 2_000 == await running.cached_tokens()
    assert not running.is_due


async def test_prefill_waits_until_nobody_is_there(running: _Running) -> None:
    """As long as the ledger holds a request, nothing is computed for others."""
    reservation = running.ledger.admit(tenant="", prompt_tokens=10, max_output_tokens=10)
    await running.pauses.go_on()
    assert 0 == running.engine.load().prompt_tokens_computed

    running.ledger.release(reservation, is_complete=True)
    await running.pauses.go_on()
    await running.pauses.go_on()

    assert 2_000 == await running.cached_tokens()


async def test_prefill_makes_way_for_a_request(running: _Running) -> None:
    """Who comes in the middle of it waits for one piece, not for the whole prefix."""

    def arrive() -> None:
        if not running.ledger.admissions:
            running.ledger.admit(tenant="", prompt_tokens=10, max_output_tokens=10)

    running.engine.on_step(arrive)

    await running.pauses.go_on()

    assert 1_024 <= running.engine.load().prompt_tokens_computed < 2_000
    assert running.is_due


def test_prefix_file(tmp_path: Path) -> None:
    """Lines of text and lines of token ids; blank ones do not count."""
    path = tmp_path / "prefixes.jsonl"
    path.write_text('{"token_ids": [3, 4]}\n\n{"text": "a b"}\n', encoding="utf-8")

    given, text = read_prefix_file(path, _TOKENIZER)

    assert [3, 4] == given
    assert text


def test_a_line_of_a_prefix_file_ends_at_a_line_feed(tmp_path: Path) -> None:
    """JSON may hold other characters that end lines elsewhere as they are."""
    path = tmp_path / "prefixes.jsonl"
    path.write_text('{"text": "a\u2028b"}\n', encoding="utf-8")

    assert 1 == len(read_prefix_file(path, _TOKENIZER))


def test_a_prefix_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """In the one line with which the worker ends."""
    path = tmp_path / "prefixes.jsonl"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ValueError, match=r"prefixes\.jsonl: "):
        read_prefix_file(path, _TOKENIZER)


@pytest.mark.parametrize(
    "line", ["[" * 20_000, "[]", "{}", '{"token_ids": [-1]}', '{"token_ids": ["a"]}', '{"text": 1}', "x"]
)
def test_unusable_line_of_a_prefix_file_is_named(tmp_path: Path, line: str) -> None:
    """The worker does not start with half of what it was given."""
    path = tmp_path / "prefixes.jsonl"
    path.write_text(f'{{"text": "a"}}\n{line}\n', encoding="utf-8")

    with pytest.raises(ValueError, match="line 2"):
        read_prefix_file(path, _TOKENIZER)
