"""What surrounds a call of the HTTP/2 edge: its span, and the one place where exceptions become its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from grpc import StatusCode

from tidegate.http2.grpc_status import CallError, Status
from tidegate.http2.server import Handler
from tidegate.http2.server_call import ServerCall, time_left_s
from tidegate.rpc.http2_status import to_status
from tidegate.rpc.served_calls import ServedCalls
from tidegate.rpc.status import RpcError
from tidegate.rpc.telemetry import cancelled_code

# Serves a call, and returns the trailing metadata of its OK.
Serve = Callable[[ServerCall], Awaitable[Status]]


def served(
    method: str,
    serve: Serve,
    calls: ServedCalls,
    *,
    to_rpc: Callable[[Exception], RpcError],
    logger: logging.Logger,
) -> Handler:
    """``serve``, recorded by ``calls`` as ``method``, without its slash: inside a SERVER span, which is current in it.

    All that it raises is turned into a google.rpc.Status by ``to_rpc``, the service's error table. One coroutine does
    both, since it lasts as long as the stream.
    """

    async def handler(call: ServerCall) -> Status:
        record = calls.begin(method, call.metadata)
        code = StatusCode.UNKNOWN
        try:
            try:
                status = await serve(call)
            except CallError as call_error:  # of the transport; to mypyc a name has one type
                status = call_error.status
            except Exception as error:  # the edge: everything becomes a status
                rpc_error = to_rpc(error)
                if rpc_error.code is StatusCode.INTERNAL:
                    logger.exception("call failed: %s", rpc_error.reason)
                status = to_status(rpc_error)
            code = status.code
            return status
        except asyncio.CancelledError:
            code = cancelled_code(time_left_s(call))
            raise
        finally:
            record.end(code)

    return handler
