"""Sends what ``otlp`` writes, by OpenTelemetry's exporter with its settings, its retries and its TLS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource

from tidegate.telemetry.otlp import ExportRequests

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class OtlpSender(OTLPSpanExporter):
    """Takes spans that are written already."""

    def __init__(
        self,
        resource: Resource,
        endpoint: str | None,
        *,
        timeout_s: float | None = None,
        compression: grpc.Compression | None = None,
    ) -> None:
        """What is None is as OpenTelemetry's variables say. Raises whatever its exporter does."""
        super().__init__(endpoint=endpoint, timeout=timeout_s, compression=compression)
        self._requests = ExportRequests(resource)
        stub: Any = _TraceService
        self._stub = stub  # of which another one is made with each new connection
        self._client = stub(self._channel)

    def _translate_data(self, data: Sequence[Any]) -> Any:
        return self._requests.of(data)


class _TraceService:
    """A stub whose requests are serialised already."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.Export: Any = channel.unary_unary(_EXPORT, response_deserializer=ExportTraceServiceResponse.FromString)
