"""Counts the work of jobs that a worker's latest load report cannot know yet."""

from __future__ import annotations

from dataclasses import dataclass

# The first report after a job was sent may have been on its way already; the second one has seen it.
_REPORTS_UNTIL_SEEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A job's work, and the number of reports that had been received when it was sent."""

    blocks: int
    prefill_tokens: int
    at_report: int


class UnseenWork:
    """The sums over one worker's jobs, kept up to date at a constant cost for each job and report."""

    def __init__(self) -> None:
        self._report = 0
        # Requests, blocks and prefill tokens, for the latest _REPORTS_UNTIL_SEEN reports only.
        self._by_report: dict[int, tuple[int, int, int]] = {0: (0, 0, 0)}

    @property
    def requests(self) -> int:
        """How many jobs have not been seen yet."""
        return sum(requests for requests, _, _ in self._by_report.values())

    @property
    def blocks(self) -> int:
        """KV blocks of all jobs not seen yet."""
        return sum(blocks for _, blocks, _ in self._by_report.values())

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens that all jobs not seen yet will have computed."""
        return sum(tokens for _, _, tokens in self._by_report.values())

    def send(self, *, blocks: int, prefill_tokens: int) -> Sent:
        """A job with so much work goes to the worker."""
        sent = Sent(blocks=blocks, prefill_tokens=prefill_tokens, at_report=self._report)
        self._add(sent, 1)
        return sent

    def end(self, sent: Sent) -> None:
        """The job has ended; call once for each job."""
        if sent.at_report in self._by_report:
            self._add(sent, -1)

    def receive_report(self) -> None:
        """A new load report has come in."""
        self._report += 1
        self._by_report[self._report] = (0, 0, 0)
        self._by_report.pop(self._report - _REPORTS_UNTIL_SEEN, None)

    def _add(self, sent: Sent, sign: int) -> None:
        requests, blocks, tokens = self._by_report[sent.at_report]
        self._by_report[sent.at_report] = (
            requests + sign,
            blocks + sign * sent.blocks,
            tokens + sign * sent.prefill_tokens,
        )
