"""`tidegate serve`: one worker and one gateway on this machine, in the foreground."""

from __future__ import annotations

from rich.console import Console

from tidegate.client.chat import choose_model
from tidegate.client.client import Client
from tidegate.client.stack import StackOptions, local_stack
from tidegate.client.steps import make_steps

_HOW_TO_CALL = """
[bold]{model}[/] is served on [bold]{target}[/] (gRPC, plain text). Ctrl-C stops it.

  tidegate chat --target {target}

  buf curl --protocol grpc --http2-prior-knowledge http://{target}/tidegate.inference.v1.InferenceService/Generate \\
    --data '{{"model":"{model}","chat":{{"messages":[{{"role":"CHAT_ROLE_USER","content":"Hello"}}]}}}}'

  python - <<'PYTHON'
  import asyncio
  from tidegate.client import Client
  from tidegate.inference.v1.inference_service_pb2 import GenerateRequest

  async def main():
      async with Client.connect("{target}") as client:
          chat = {{"messages": [{{"role": "CHAT_ROLE_USER", "content": "Hello"}}]}}
          async for event in client.generate(GenerateRequest(model="{model}", chat=chat)):
              print("".join(getattr(event, "text", "")), end="", flush=True)

  asyncio.run(main())
  PYTHON

Logs: {logs}
"""


async def serve(options: StackOptions, *, notes: Console) -> None:
    """Serve until cancelled. Raises ``ChildFailedError`` when worker or gateway ends by itself."""
    async with local_stack(options, make_steps(notes)) as stack:
        async with Client.connect(stack.gateway_target) as client:
            model = await choose_model(client, None)
        text = _HOW_TO_CALL.format(model=model, target=stack.gateway_target, logs=options.state_dir / "logs")
        notes.print(text, highlight=False, soft_wrap=True)
        raise await stack.ended()
