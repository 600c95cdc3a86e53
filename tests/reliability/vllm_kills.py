"""``kill -9`` of a worker with the real vLLM, while greedy streams run that end as if nothing had happened.

One worker, which is restarted: its streams wait for it. A second vLLM beside it would be faster for them, and take as
much memory and CPU again; to what goes on with a stream the two are the same, a process that has never seen it.

Prefilling adds up numbers in another order than decoding. Where two tokens are as good as equally likely, a text may
branch behind a kill; where it does, the two tokens and their log probabilities are told. In bfloat16, the default, a
logit of 20 is one of eight to the unit, and many a token ties with the next one: so the model runs in float32 here.
"""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from tests.reliability.services import FleetPlan, Service, fleet
from tests.reliability.verdict import Verdict
from tidegate.client.stack import state_dir
from tidegate.inference.v1 import chat_pb2, generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from worker.default_model import prepare_default_model

_MODEL = "smollm2-135m-instruct"
_SUBJECTS = ("rivers", "the moon", "bread", "glass", "trains", "bees", "salt", "maps", "clocks", "rain")
_TOKENS = 100
_KILL_AFTER_TOKENS = (5, 70)  # of the stream that has most
_SAME_SHARE = 0.9
_TIMEOUT_S = 600.0


@dataclass(kw_only=True)
class Text:
    """One greedy answer, as a client got it."""

    token_ids: list[int] = field(default_factory=list)
    tops: list[list[tuple[int, float]]] = field(default_factory=list)  # the likeliest two, where asked for
    text: str = ""
    continuations: int = 0
    gap_s: float = 0.0


async def run(*, seed: int, kills: int, streams: int) -> Verdict:
    """Answer some prompts undisturbed, then again with a kill in the middle of each answer; ``streams`` at a time."""
    rng = random.Random(seed)
    model_dir = state_dir() / "models" / _MODEL
    await asyncio.to_thread(prepare_default_model, model_dir)
    plan = FleetPlan(
        workers=1,
        gateways=1,
        worker_arguments=("--model-dir", str(model_dir), *_SMALL),
        gateway_arguments=("--max-pause-s", "300"),
    )
    branches: list[str] = []
    same, gaps, continued, back_s = 0, [0.0], 0, [0.0]
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (worker,), (gateway,) = await stack.enter_async_context(fleet(directory, plan))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.address, options=CHANNEL_OPTIONS))
        stub: inference_service_pb2_grpc.InferenceServiceAsyncStub
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        prompts = [f"Tell me a long story about {subject}." for subject in _SUBJECTS]
        whole = {prompt: await _answer(stub, prompt, Text()) for prompt in prompts}
        for kill in range(kills):
            chosen = [prompts[(kill + number) % len(prompts)] for number in range(streams)]
            texts = [Text() for _ in chosen]
            async with asyncio.TaskGroup() as tasks:
                for prompt, text in zip(chosen, texts, strict=True):
                    tasks.create_task(_answer(stub, prompt, text))
                await _until_tokens(texts, rng.randint(*_KILL_AFTER_TOKENS))
                back_s.append(await _kill(worker))
            for prompt, text in zip(chosen, texts, strict=True):
                gaps.append(text.gap_s)
                continued += bool(text.continuations)
                if text.token_ids == whole[prompt].token_ids and text.text == whole[prompt].text:
                    same += 1
                else:
                    branches.append(f"kill {kill + 1}, {prompt!r}: {_branch(whole[prompt], text)}")
    answers = kills * streams
    return Verdict(
        figure=f"{kills} kills, {answers} greedy streams, {continued} continued: {same} with the text of an undisturbed"
        f" run; longest gap {max(gaps):.0f} s, of which {max(back_s):.0f} s are vLLM's start",
        details={"kills": kills, "streams": answers, "continued": continued, "same": same, "branches": branches},
        wrong=branches if same < _SAME_SHARE * answers else [],
    )


# Little memory, and no compilation: vLLM starts in half a minute.
_SMALL = (
    *("--context-length", "1024", "--max-running-requests", "8", "--kv-cache-bytes", str(1 << 28)),
    *("--kv-block-count", "33", "--eager", "--prefetch-share", "0", "--dtype", "float32"),
)


async def _answer(stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, prompt: str, text: Text) -> Text:
    request = inference_service_pb2.GenerateRequest(model=_MODEL)
    request.chat.messages.add(role=chat_pb2.CHAT_ROLE_USER, content=prompt)
    request.sampling.CopyFrom(generation_pb2.SamplingOptions(max_output_tokens=_TOKENS, temperature=0.0))
    request.output.include_token_ids = True
    request.output.logprobs = 2
    last_at = None
    async for response in stub.Generate(request, timeout=_TIMEOUT_S):
        now = time.monotonic()
        text.gap_s = max(text.gap_s, now - last_at) if last_at is not None else 0.0
        last_at = now
        text.token_ids.extend(response.delta.token_ids)
        text.tops.extend([(top.token_id, top.logprob) for top in one.top] for one in response.delta.logprobs)
        text.text += "".join(response.delta.text)
        if response.HasField("finished"):
            text.continuations = response.finished.continuation_count
    return text


async def _until_tokens(texts: Sequence[Text], count: int) -> None:
    while max(len(text.token_ids) for text in texts) < count:  # noqa: ASYNC110 - what comes is from another process
        await asyncio.sleep(0.01)


async def _kill(worker: Service) -> float:
    """Returns the seconds until the worker is ready again."""
    begin = time.monotonic()
    worker.signal(signal.SIGKILL)
    await worker.gone()
    await worker.start()
    await worker.until_ready()
    return time.monotonic() - begin


def _branch(whole: Text, text: Text) -> str:
    """Where ``text`` leaves ``whole``, and how likely the two tokens were."""
    at = next(
        (index for index, pair in enumerate(zip(whole.token_ids, text.token_ids, strict=False)) if len(set(pair)) > 1),
        min(len(whole.token_ids), len(text.token_ids)),
    )
    if at >= len(whole.tops):
        return f"at token {at} of {len(whole.token_ids)}, by its length"
    likely = ", ".join(f"{token_id}: {logprob:.3f}" for token_id, logprob in whole.tops[at])
    return f"at token {at} of {len(whole.token_ids)}, where the likeliest were {likely}"
