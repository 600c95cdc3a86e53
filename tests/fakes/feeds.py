"""Feeds of an engine for tests that are about something else."""

from __future__ import annotations

from worker.feed import Feed


def wide_feed() -> Feed:
    """One that never refuses a prompt, and lets nobody wait inside the engine."""
    return Feed(step_tokens=1_000_000, max_requests=0, max_backlog_s=1e6)
