"""Names of the metadata that Tidegate reads and writes."""

REQUEST_ID = "x-request-id"
TENANT = "x-tidegate-tenant"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
# Trailing metadata of WorkerService.Generate: the serialised Finished, so that a relay need not parse the stream.
FINISHED_BIN = "tidegate-finished-bin"
