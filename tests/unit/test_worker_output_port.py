from __future__ import annotations

import asyncio

import pytest

from worker.engine import EngineError, EngineFinish, EngineOutput, FinishReason, TokenLogprob, Wait
from worker.output_port import OutputPort, ReaderBehindError

_FINISH = EngineFinish(reason=FinishReason.LENGTH)


class _Reader:
    """Lags while ``is_slow``, until ``catch_up``."""

    def __init__(self) -> None:
        self.outputs: list[EngineOutput] = []
        self.is_slow = False
        self.caught_up = asyncio.Event()

    def take(self, output: EngineOutput) -> Wait | None:
        self.outputs.append(output)
        return self._wait if self.is_slow else None

    async def _wait(self) -> None:
        await self.caught_up.wait()


def _token(number: int, finish: EngineFinish | None = None) -> EngineOutput:
    return EngineOutput(token_ids=(number,), text=str(number), finish=finish)


async def test_outputs_are_taken_inside_the_call_that_puts_them() -> None:
    """Before anything else runs; and the generation is over with the last."""
    reader = _Reader()
    port = OutputPort(reader.take)
    for number in range(3):
        port.put(_token(number, _FINISH if number == 2 else None))
        assert number + 1 == len(reader.outputs)
    await port.run()


async def test_what_a_lagging_reader_does_not_take_merges_into_one() -> None:
    """And nothing of it is lost: tokens, text, and the end."""
    reader = _Reader()
    port = OutputPort(reader.take)
    running = asyncio.create_task(port.run())
    reader.is_slow = True
    for number in range(4):
        port.put(_token(number, _FINISH if number == 3 else None))
    await asyncio.sleep(0)
    assert 1 == len(reader.outputs)
    reader.is_slow = False
    reader.caught_up.set()
    await running
    assert [("0", None), ("123", _FINISH)] == [(output.text, output.finish) for output in reader.outputs]
    assert [1, 2, 3] == reader.outputs[1].token_ids


async def test_what_the_reader_raises_is_the_generations_affair() -> None:
    """The engine that puts an output hears nothing of it."""

    def take(output: EngineOutput) -> None:
        raise ValueError(output.text)

    port = OutputPort(take)
    port.put(_token(1))
    port.put(_token(2))
    with pytest.raises(ValueError, match="1"):
        await port.run()


async def test_a_failure_ends_what_runs_and_changes_nothing_that_is_over() -> None:
    """Later outputs are dropped."""
    reader = _Reader()
    port, other = OutputPort(reader.take), OutputPort(lambda _: None)
    running = asyncio.create_task(port.run())
    await asyncio.sleep(0)
    port.fail(EngineError("gone"))
    port.put(_token(1))
    with pytest.raises(EngineError, match="gone"):
        await running
    assert [] == reader.outputs
    other.put(_token(1, _FINISH))
    other.fail(EngineError("gone"))
    await other.run()


async def test_a_failure_is_told_while_the_reader_lags() -> None:
    """Nobody waits for it any longer."""
    reader = _Reader()
    port = OutputPort(reader.take)
    running = asyncio.create_task(port.run())
    reader.is_slow = True
    port.put(_token(0))
    await asyncio.sleep(0)
    port.fail(EngineError("gone"))
    with pytest.raises(EngineError, match="gone"):
        await running


@pytest.mark.parametrize(
    ("output", "most"),
    [
        (EngineOutput(token_ids=(7,), text="word "), 400),
        (EngineOutput(token_ids=(7,), text="x" * 1_000), 10),
        (EngineOutput(token_ids=(7,), logprobs=[TokenLogprob(token_id=7, token="a", logprob=0.0)] * 4), 30),
    ],
    ids=["tokens", "text", "logprobs"],
)
async def test_what_is_held_for_a_reader_is_bounded(output: EngineOutput, most: int) -> None:
    """Whatever it consists of; past the bound the generation fails, and nothing is held for it any more."""
    reader = _Reader()
    port = OutputPort(reader.take, max_held_bytes=24_000)
    running = asyncio.create_task(port.run())
    reader.is_slow = True
    held = 0
    while not running.done():
        port.put(output)
        held += 1
        await asyncio.sleep(0)
        assert held <= most + 10
    with pytest.raises(ReaderBehindError):
        await running
    assert 1 == len(reader.outputs)
    port.put(output)
    assert port._merged is None
