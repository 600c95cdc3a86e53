"""worker/vllm_steps.py against what it replaces: the same engine outputs through vLLM's own output processor."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from worker.engine import EngineDeadError, EngineError, EngineOutput, GenerationJob, Sampling
from worker.output_port import OutputPort

pytestmark = pytest.mark.vllm

_END = 256


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One token for each byte, and one for the end: most characters outside ASCII are several tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of vLLM's dependencies about one another
        from transformers import PreTrainedTokenizerFast

        import worker.vllm_engine  # noqa: F401 - sets vLLM's environment before it is imported

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    by_byte = {symbol: number for number, symbol in enumerate(_symbols())}
    assert alphabet == sorted(by_byte)
    built = Tokenizer(models.BPE(vocab=by_byte, merges=[]))
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["<|end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<|end|>")


def _symbols() -> list[str]:
    """GPT-2's letter for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in letters]
    letters |= {byte: chr(256 + number) for number, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the engine makes, step by step, and what ends it there."""

    steps: Sequence[Sequence[int]]
    reason: str | None = None
    stopped_by: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    min_tokens: int = 0
    prompt: tuple[int, ...] = tuple(b"Hi")


_WORD = [*"Grüße, 🐈!".encode()]
_CASES = {
    "a token a step": Case(steps=[[token] for token in _WORD], reason="LENGTH"),
    "several tokens a step": Case(steps=[_WORD[:5], _WORD[5:9], _WORD[9:]], reason="LENGTH"),
    "cut inside a character": Case(steps=[[token] for token in _WORD[:10]], reason="LENGTH"),
    "the model's own end": Case(steps=[*([token] for token in _WORD), [_END]], reason="STOP"),
    "an end behind others": Case(steps=[_WORD[:5], [*_WORD[5:], _END]], reason="STOP"),
    "a stop token": Case(steps=[[72], [33]], reason="STOP", stopped_by=33),
    "a stop string": Case(steps=[[token] for token in b"one, two, three"], stop=("two", "e, t")),
    "a stop string in mid-step": Case(steps=[[*b"one, "], [*b"two, three"]], stop=("two",)),
    "a stop string that only begins": Case(steps=[[token] for token in b"one tw"], stop=("two",), reason="LENGTH"),
    "a stop string before it is allowed": Case(
        steps=[[token] for token in b"aa aa"], stop=("aa",), min_tokens=3, reason="LENGTH"
    ),
    "logprobs": Case(steps=[[token] for token in _WORD], logprobs=2, reason="LENGTH"),
    "logprobs of the prompt": Case(steps=[[72], [73]], logprobs=1, prompt_logprobs=1, reason="LENGTH"),
    "logprobs up to an end": Case(steps=[[72], [73, _END]], logprobs=0, reason="STOP"),
    "logprobs up to a stop string": Case(steps=[[*b"ab"], [*b"cdef"]], logprobs=1, stop=("cd",)),
}


def _core_outputs(case: Case) -> Iterator[list[Any]]:
    import numpy as np
    import torch
    from vllm.v1.engine import EngineCoreEvent, EngineCoreEventType, EngineCoreOutput, FinishReason
    from vllm.v1.metrics.stats import PrefillStats
    from vllm.v1.outputs import LogprobsLists, LogprobsTensors

    def logprobs(tokens: Sequence[int]) -> Any:
        width = (case.logprobs or 0) + 1
        ids = np.array([[token + rank for rank in range(width)] for token in tokens])
        values = np.array([[-0.5 - rank for rank in range(width)] for _ in tokens])
        return LogprobsLists(ids, values, np.ones(len(tokens), dtype=int))

    for number, tokens in enumerate(case.steps):
        is_first, is_last = not number, number == len(case.steps) - 1
        output = EngineCoreOutput(
            request_id="inner",
            new_token_ids=list(tokens),
            new_logprobs=logprobs(tokens) if case.logprobs is not None else None,
            finish_reason=FinishReason[case.reason] if is_last and case.reason else None,
            stop_reason=case.stopped_by if is_last else None,
        )
        if is_first:
            output.events = [
                EngineCoreEvent(EngineCoreEventType.QUEUED, 1.0),
                EngineCoreEvent(EngineCoreEventType.SCHEDULED, 1.5),
            ]
            output.prefill_stats = PrefillStats(num_prompt_tokens=2, num_computed_tokens=1, num_cached_tokens=1)
            if case.prompt_logprobs is not None:
                output.new_prompt_logprobs_tensors = LogprobsTensors(
                    torch.tensor([[105, 7]]), torch.tensor([[-1.0, -2.0]]), torch.tensor([1])
                )
        yield [output]


def _request(case: Case) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine import EngineCoreRequest

    return EngineCoreRequest(
        request_id="inner",
        external_req_id="job",
        prompt_token_ids=list(case.prompt),
        mm_features=None,
        sampling_params=SamplingParams(
            max_tokens=100,
            min_tokens=case.min_tokens,
            stop=list(case.stop),
            logprobs=case.logprobs,
            prompt_logprobs=case.prompt_logprobs,
            output_kind=RequestOutputKind.DELTA,
        ),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


def _job(case: Case) -> GenerationJob:
    return GenerationJob(
        job_id="job",
        prompt_token_ids=case.prompt,
        sampling=Sampling(max_output_tokens=100, stop_strings=case.stop),
        logprobs=case.logprobs,
        prompt_logprobs=case.prompt_logprobs,
    )


def _run(processor: Any, case: Case) -> tuple[list[str], list[Any]]:
    """What the processor would have aborted, and its statistics of each step."""
    from vllm.v1.metrics.stats import IterationStats

    aborted, statistics = [], []
    for number, outputs in enumerate(_core_outputs(case)):
        step = IterationStats()
        step.iteration_timestamp = 10.0 + number
        aborted += processor.process_outputs(outputs, 2.0 + number, step).reqs_to_abort
        statistics.append(vars(step))
    return aborted, statistics


def _by_us(tokenizer: Any, case: Case) -> tuple[list[EngineOutput], Any]:
    from vllm.v1.engine.output_processor import OutputProcessor

    from worker.vllm_steps import Reader, StepProcessor

    taken: list[EngineOutput] = []
    processor = StepProcessor(OutputProcessor(tokenizer, log_stats=True))
    reader = Reader(_job(case), OutputPort(taken.append), None)
    processor.expect(reader)
    processor.add_request(_request(case), None)
    processor.prepare(reader)
    result = _run(processor, case)
    assert not processor.has_unfinished_requests()
    return taken, result


def _by_vllm(tokenizer: Any, case: Case) -> tuple[list[Any], Any]:
    from vllm.v1.engine.output_processor import OutputProcessor

    class Queue:
        def __init__(self) -> None:
            self.outputs: list[Any] = []

        def put(self, output: Any) -> None:
            self.outputs.append(output)

    queue = Queue()
    processor = OutputProcessor(tokenizer, log_stats=True)
    processor.add_request(_request(case), None, queue=queue)
    return queue.outputs, _run(processor, case)


@pytest.mark.parametrize("prompt", [[72, 105], [*b"A longer one, " * 9], [_END, _END], [*b"end", _END]], ids=len)
def test_text_does_not_depend_on_how_much_of_the_prompt_is_read(tokenizer: Any, prompt: list[int]) -> None:
    """Of a long one it is the end; of one without text at its end, all."""
    case = Case(steps=[[token] for token in b" and so on"], reason="LENGTH", prompt=tuple(prompt))
    ours, _ = _by_us(tokenizer, case)
    theirs, _ = _by_vllm(tokenizer, case)
    assert [output.outputs[0].text for output in theirs] == [output.text for output in ours]


def test_spaces_are_where_they_were_with_a_decoder_that_strips_the_first(tokenizer: Any) -> None:
    """As those of Llama 2 and Mistral do, whose words begin with their spaces."""
    from transformers import PreTrainedTokenizerFast

    del tokenizer  # which has imported vLLM
    words = ["<unk>", "<s>", "▁one", "▁two", "o", *(f"<0x{byte:02X}>" for byte in range(256))]
    built = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    built.add_special_tokens(["<s>"])
    stripping = PreTrainedTokenizerFast(tokenizer_object=built)
    first_byte = words.index("<0x00>")
    output = [2, 3, *(first_byte + byte for byte in "ü".encode()), 4, 1, 2]
    for prompt in ([1, *[2] * 50], [1], [1] * 40, [2, 4]):
        case = Case(steps=[[token] for token in output], reason="LENGTH", prompt=tuple(prompt))
        ours, _ = _by_us(stripping, case)
        theirs, _ = _by_vllm(stripping, case)
        assert [output.outputs[0].text for output in theirs] == [output.text for output in ours]


@pytest.mark.parametrize("case", _CASES.values(), ids=_CASES)
def test_outputs_are_those_of_vllms_own_processor(tokenizer: Any, case: Case) -> None:
    """Text, tokens and log probabilities of each step, and the end; the token that ended it is left out."""
    ours, (our_aborts, our_statistics) = _by_us(tokenizer, case)
    theirs, (their_aborts, their_statistics) = _by_vllm(tokenizer, case)

    assert [output.outputs[0].text for output in theirs] == [output.text for output in ours]
    end, finish = theirs[-1].outputs[0], ours[-1].finish
    assert finish is not None
    assert (end.finish_reason, end.stop_reason) == (finish.reason.value, finish.stop_string or finish.stop_token_id)
    dropped = finish.reason.value == "stop" and finish.stop_string is None
    tokens = [token for output in theirs for token in output.outputs[0].token_ids]
    kept = tokens[:-1] if dropped else tokens
    assert kept == [token for output in ours for token in output.token_ids]
    logprobs = [position for output in theirs for position in output.outputs[0].logprobs or ()]
    assert [position[token].logprob for token, position in zip(kept, logprobs, strict=False)] == [
        logprob.logprob for output in ours for logprob in output.logprobs
    ]
    assert [theirs[0].num_cached_tokens] * len(ours) == [output.cached_prompt_tokens for output in ours]
    assert (case.prompt_logprobs is not None) == bool(ours[0].prompt_logprobs)
    assert their_aborts == our_aborts
    assert str(their_statistics) == str(our_statistics)


@pytest.mark.parametrize("stop", [(), ("k",)])
def test_of_tokens_that_are_no_characters_the_text_is_the_same_and_sooner(
    tokenizer: Any, stop: tuple[str, ...]
) -> None:
    """By itself vLLM decodes all of them with each that follows, and has a text when a character comes."""
    steps = [[token] for token in (*b"a", *[0xFF] * 200, *b"ok", *[0xFF] * 200, *"ü".encode())]
    case = Case(steps=steps[:203] if stop else steps, stop=stop, reason=None if stop else "LENGTH")
    ours, _ = _by_us(tokenizer, case)
    theirs, _ = _by_vllm(tokenizer, case)
    assert "".join(output.outputs[0].text for output in theirs) == "".join(output.text for output in ours)
    assert "".join(output.text for output in ours[:101])[1:50] == "\N{REPLACEMENT CHARACTER}" * 49


def test_a_decoder_at_work_is_not_replaced(tokenizer: Any) -> None:
    """An output that overtakes the preparing of its reader is decoded by vLLM's own, and so is all behind it."""
    from vllm.v1.engine.output_processor import OutputProcessor

    from worker.vllm_steps import Reader, StepProcessor

    taken: list[EngineOutput] = []
    case = _CASES["a token a step"]
    processor = StepProcessor(OutputProcessor(tokenizer, log_stats=True))
    reader = Reader(_job(case), OutputPort(taken.append), None)
    processor.expect(reader)
    processor.add_request(_request(case), None)
    for outputs in _core_outputs(case):
        processor.process_outputs(outputs)
        processor.prepare(reader)
    assert "".join(output.text for output in taken) == "Grüße, 🐈!"


def test_an_output_that_cannot_be_read_ends_its_request_alone(tokenizer: Any) -> None:
    """Otherwise vLLM's loop would end, and with it every stream."""
    from vllm.v1.engine.output_processor import OutputProcessor

    from worker.vllm_steps import Reader, StepProcessor

    class Failing(OutputPort):
        def put(self, output: EngineOutput) -> None:
            raise RuntimeError("broken")

    case = _CASES["a token a step"]
    processor = StepProcessor(OutputProcessor(tokenizer, log_stats=True))
    reader = Reader(_job(case), Failing(lambda _: None), None)
    processor.expect(reader)
    processor.add_request(_request(case), None)
    processor.prepare(reader)
    aborted, _ = _run(processor, case)
    assert (["inner"], False) == (aborted, processor.has_unfinished_requests())


async def test_the_death_of_vllm_reaches_every_reader(tokenizer: Any) -> None:
    """And the abort of one request reaches its own."""
    from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError
    from vllm.v1.engine.output_processor import OutputProcessor

    from worker.vllm_steps import Reader, StepProcessor

    for end, expected in (
        (lambda processor: processor.propagate_error(VllmEngineDeadError()), EngineDeadError),
        (lambda processor: processor.propagate_error(RuntimeError()), EngineDeadError),
        (lambda processor: processor.abort_requests(["inner"], internal=True), EngineError),
    ):
        processor = StepProcessor(OutputProcessor(tokenizer, log_stats=True))
        reader = Reader(_job(_CASES["a stop token"]), OutputPort(lambda _: None), None)
        processor.expect(reader)
        processor.add_request(_request(_CASES["a stop token"]), None)
        end(processor)  # type: ignore[no-untyped-call] # vLLM is untyped here
        with pytest.raises(expected):
            await reader.port.run()
