"""Decisions of the gateway, as pure code: no gRPC, asyncio, logging or telemetry, and time and chance are passed in."""

from tidegate.native.choice import search_path

__path__ = search_path(__name__, __path__)
