"""What gateway, worker and client have to agree on beside the protos: status details, metadata keys, life cycle."""

from tidegate.native.choice import search_path

__path__ = search_path(__name__, __path__)
