"""Stream one answer with nothing but grpcio and the generated code: ``python generate.py TARGET MODEL QUESTION``.

What a client in any language does: when nothing has come yet and the server names a wait, wait and ask again; otherwise
say why. ``tidegate.client.Client`` does this for you.
"""

from __future__ import annotations

import sys
import time

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from tidegate.inference.v1.chat_pb2 import CHAT_ROLE_USER, ChatMessage, ChatPrompt
from tidegate.inference.v1.inference_service_pb2 import GenerateRequest
from tidegate.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

ATTEMPTS = 4


def explain(error: grpc.RpcError) -> float | None:
    """Print what went wrong; the wait in seconds that the server suggests, if it does."""
    wait_s = None
    status = rpc_status.from_call(error)
    print(error.code().name, error.details(), file=sys.stderr)
    for detail in status.details if status else ():
        info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            print(f"  reason {info.reason} {dict(info.metadata)}", file=sys.stderr)
        elif detail.Unpack(bad_request):
            for violation in bad_request.field_violations:
                print(f"  {violation.field}: {violation.description}", file=sys.stderr)
        elif detail.Unpack(retry):
            wait_s = retry.retry_delay.ToTimedelta().total_seconds()
    return wait_s


def main(target: str, model: str, question: str) -> int:
    """Print the answer as it comes."""
    chat = ChatPrompt(messages=[ChatMessage(role=CHAT_ROLE_USER, content=question)])
    request = GenerateRequest(model=model, chat=chat)
    with grpc.insecure_channel(target) as channel:
        for _ in range(ATTEMPTS):
            has_begun = False
            try:
                for response in InferenceServiceStub(channel).Generate(request, timeout=60):
                    has_begun = True
                    print("".join(response.delta.text), end="", flush=True)
                print()
                return 0
            except grpc.RpcError as error:
                wait_s = explain(error)
                if has_begun or wait_s is None:
                    return 1
                time.sleep(wait_s)
    return 1


if __name__ == "__main__":
    if len(sys.argv) != len(("generate.py", "TARGET", "MODEL", "QUESTION")):
        sys.exit("usage: python generate.py TARGET MODEL QUESTION")
    sys.exit(main(*sys.argv[1:]))
