"""An OTLP collector for ``bench.tracing``: takes spans, and drops them."""

from __future__ import annotations

import asyncio

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

_SERVICE, _METHOD = "opentelemetry.proto.collector.trace.v1.TraceService", "Export"


async def _export(request: bytes, context: object) -> bytes:
    del request, context
    return trace_service_pb2.ExportTraceServiceResponse().SerializeToString()


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {_METHOD: grpc.unary_unary_rpc_method_handler(_export)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
