"""Counts the KV blocks of jobs that a worker's latest load report cannot know yet."""

from __future__ import annotations

from dataclasses import dataclass

# The first report after a job was sent may have been on its way already; the second one has seen it.
_REPORTS_UNTIL_SEEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A job's blocks, and the number of reports that had been received when it was sent."""

    blocks: int
    at_report: int


class UnseenBlocks:
    """The sum over one worker's jobs, kept up to date at a constant cost for each job and report."""

    def __init__(self) -> None:
        self._report = 0
        self._by_report: dict[int, int] = {0: 0}  # the latest _REPORTS_UNTIL_SEEN reports only

    @property
    def blocks(self) -> int:
        """Blocks of all jobs not seen yet."""
        return sum(self._by_report.values())

    def send(self, blocks: int) -> Sent:
        """A job with so many ``blocks`` goes to the worker."""
        self._by_report[self._report] += blocks
        return Sent(blocks=blocks, at_report=self._report)

    def end(self, sent: Sent) -> None:
        """The job has ended; call once for each job."""
        if sent.at_report in self._by_report:
            self._by_report[sent.at_report] -= sent.blocks

    def receive_report(self) -> None:
        """A new load report has come in."""
        self._report += 1
        self._by_report[self._report] = 0
        self._by_report.pop(self._report - _REPORTS_UNTIL_SEEN, None)
