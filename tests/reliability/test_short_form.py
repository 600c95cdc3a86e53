from __future__ import annotations

from tests.reliability.trial import Plan, run

# What a client may be told in place of an answer, while a worker is away.
_HONEST = {
    *("FINISHED", "KV_EXHAUSTED", "NO_WORKER_AVAILABLE", "REQUEST_QUARANTINED", "STREAM_INTERRUPTED"),
    *("UNAVAILABLE", "WAIT_TOO_LONG"),
}


async def test_streams_outlive_their_workers() -> None:
    """A worker is killed while a dozen streams run: nobody gets a wrong token, and most get all of theirs.

    How many, and how soon, depends on the machine: `make test-reliability` measures that.
    """
    report = await run(Plan(kinds=("kill",), faults=1, streams=12, tokens=(60, 150), pause_s=0.3))
    assert [] == report.wrong
    assert _HONEST >= set(report.ends)
    assert report.ends["FINISHED"] > len(report.histories) / 2
    assert report.gaps_s
    assert 0 == report.blocks_held
