from __future__ import annotations

import asyncio

import pytest

from worker.engine import EngineError, EngineFinish, EngineOutput, FinishReason, Wait
from worker.output_port import OutputPort

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
