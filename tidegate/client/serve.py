"""`tidegate serve`: one worker and one gateway on this machine, in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from tidegate.client.chat import choose_model
from tidegate.client.client import Client
from tidegate.client.stack import StackOptions, local_stack
from tidegate.client.steps import make_steps

_PYTHON = """\
import asyncio
from tidegate.client import Client
from tidegate.inference.v1.inference_service_pb2 import GenerateRequest

async def main():
    async with Client.connect("{target}") as client:
        chat = {{"messages": [{{"role": "CHAT_ROLE_USER", "content": "Hello"}}]}}
        async for event in client.generate(GenerateRequest(model="{model}", chat=chat)):
            print("".join(getattr(event, "text", "")), end="", flush=True)

asyncio.run(main())
"""

_BUF = """\
{bin}/buf curl --protocol grpc --http2-prior-knowledge \\
  http://{target}/tidegate.inference.v1.InferenceService/Generate \\
  --data '{{"model":"{model}","chat":{{"messages":[{{"role":"CHAT_ROLE_USER","content":"Hello"}}]}}}}'"""


def how_to_call(*, target: str, model: str) -> list[str]:
    """Shell commands that work as they stand: with this environment's programs, from the working directory."""
    programs = Path(sys.executable).parent
    if programs.is_relative_to(Path.cwd()):
        programs = programs.relative_to(Path.cwd())
    return [
        f"{programs}/tidegate chat --target {target}",
        _BUF.format(bin=programs, target=target, model=model),
        f"{programs}/python - <<'PYTHON'\n{_PYTHON.format(target=target, model=model)}PYTHON",
    ]


async def serve(options: StackOptions, *, notes: Console) -> None:
    """Serve until cancelled. Raises ``ChildFailedError`` when worker or gateway ends by itself."""
    async with local_stack(options, make_steps(notes)) as stack:
        target = stack.gateway_target
        async with Client.connect(target) as client:
            model = await choose_model(client, None)
        commands = "\n\n".join(how_to_call(target=target, model=model))
        notes.print(f"\n{commands}\n", style="dim", markup=False, highlight=False, soft_wrap=True)
        notes.print(f"Logs are in {options.state_dir / 'logs'}.", highlight=False, soft_wrap=True)
        notes.print(f"[bold]{model}[/] is served on [bold]{target}[/]. Ctrl-C stops it.", highlight=False)
        raise await stack.ended()
