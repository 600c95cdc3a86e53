"""A worker: an engine, its KV ledger, and how gateways reach them."""

from tidegate.native.choice import search_path

__path__ = search_path(__name__, __path__)
