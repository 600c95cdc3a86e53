"""Sends what ``otlp`` writes, by OpenTelemetry's exporter with its settings, its retries and its TLS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult

from tidegate.telemetry.otlp import ExportRequests

_LOGGER = logging.getLogger(__name__)

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
        self.taken = self.rejected = 0  # spans so far, of batches that have reached the collector
        self._newly_rejected = 0  # of the latest batch
        self._complaint = ""
        self._requests = ExportRequests(resource)
        stub: Any = partial(_TraceService, self._note)
        self._stub = stub  # of which another one is made with each new connection
        self._client = stub(self._channel)

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """See ``span_export.Exporter``."""
        self._newly_rejected = 0
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            rejected = max(0, min(self._newly_rejected, len(spans)))
            self.rejected += rejected
            self.taken += len(spans) - rejected
        return result

    def _translate_data(self, data: Sequence[Any]) -> Any:
        return self._requests.of(data)

    def _note(self, response: ExportTraceServiceResponse) -> None:
        """A batch was taken, or all but some spans of it were."""
        self._newly_rejected, complaint = (
            response.partial_success.rejected_spans,
            response.partial_success.error_message,
        )
        if complaint and complaint != self._complaint:  # it may say the same of each batch
            self._complaint = complaint
            _LOGGER.warning("the collector has rejected %d spans: %.300s", self._newly_rejected, complaint)


class _TraceService:
    """A stub whose requests are serialised already, and which tells ``note`` what is answered."""

    def __init__(self, note: Callable[[ExportTraceServiceResponse], None], channel: grpc.Channel) -> None:
        self._note = note
        self._export: Any = channel.unary_unary(_EXPORT, response_deserializer=ExportTraceServiceResponse.FromString)

    def Export(self, request: bytes, **options: Any) -> None:  # noqa: N802 - gRPC's name
        self._note(self._export(request, **options))
