"""What vLLM makes of token ids: ``python -m tests.fakes.vllm_scores IDS.json DIR...`` in a process of its own.

Writes a line of JSON for each directory: the mean negative log likelihood of every id but the first of each list.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(ids: Path, directories: list[str]) -> None:
    """Load each checkpoint after the other, and score."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    from vllm import LLM, SamplingParams, TokensPrompt

    prompts = json.loads(ids.read_text(encoding="utf-8"))
    sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
    for directory in directories:
        engine = LLM(
            directory,
            enforce_eager=True,
            max_model_len=max(map(len, prompts)) + 1,
            max_num_seqs=16,
            kv_cache_memory_bytes=1 << 27,
            enable_chunked_prefill=False,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
        )
        outputs = engine.generate(
            [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts], sampling, use_tqdm=False
        )
        losses = [
            -entry[token].logprob
            for prompt, output in zip(prompts, outputs, strict=True)
            for token, entry in zip(prompt[1:], (output.prompt_logprobs or [])[1:], strict=True)
            if entry is not None
        ]
        print(json.dumps({"directory": directory, "nll": sum(losses) / len(losses)}), flush=True)  # noqa: T201
        engine.llm_engine.engine_core.shutdown()
        del engine


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
