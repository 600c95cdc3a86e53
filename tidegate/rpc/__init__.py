"""What gateway, worker and client have to agree on beside the protos: status details, metadata keys, life cycle."""
