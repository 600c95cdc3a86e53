"""Decisions of the gateway, as pure code: no gRPC, asyncio, logging or telemetry, and time and chance are passed in."""
