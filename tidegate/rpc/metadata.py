"""Names of the metadata that Tidegate reads and writes."""

REQUEST_ID = "x-request-id"
TENANT = "x-tidegate-tenant"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
# Initial metadata of WorkerService.Generate, sent when the request is admitted: the sample_number of the last
# LoadReport before that. Reports with a greater one know of the request.
LOAD_SAMPLE = "tidegate-load-sample"
# Trailing metadata of WorkerService.Generate: the serialised Finished, so that a relay need not parse the stream.
FINISHED_BIN = "tidegate-finished-bin"
