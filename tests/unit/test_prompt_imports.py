from __future__ import annotations

import subprocess
import sys


def test_preparing_prompts_loads_no_model_library() -> None:
    """torch, transformers and vLLM cost hundreds of megabytes and seconds, and the gateway does without."""
    code = "import sys, gateway.request, gateway.prompt, gateway.canary; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set() == {"torch", "transformers", "vllm", "numpy", "xgrammar"} & set(loaded)
