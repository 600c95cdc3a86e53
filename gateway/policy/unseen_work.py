"""Counts the work of jobs that a worker's latest load report cannot know yet.

Reports and jobs travel on different connections, and either may lie unread for a while. So the worker says with each
job that it admits how many reports it had made by then: the next one knows of the job, and none before it does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False, kw_only=True, init=False)
class Sent:
    """A job's work, as long as it ``is_unseen``."""

    blocks: int
    prefill_tokens: int
    is_unseen: bool = True

    def __init__(self, *, blocks: int, prefill_tokens: int, is_unseen: bool = True) -> None:
        self.blocks = blocks
        self.prefill_tokens = prefill_tokens
        self.is_unseen = is_unseen


class UnseenWork:
    """The sums over one worker's jobs, kept up to date at a constant cost for each job and report."""

    def __init__(self, sample_number: int = 0) -> None:
        """``sample_number`` is that of the latest report."""
        self.requests = 0  # jobs that have not been seen yet
        self.blocks = 0  # their KV blocks
        self.prefill_tokens = 0  # prompt tokens that they will have computed
        self._sample_number = sample_number
        self._admitted: dict[int, list[Sent]] = {}  # by the number of the last report that cannot know of them

    def send(self, *, blocks: int, prefill_tokens: int) -> Sent:
        """A job with so much work goes to the worker."""
        sent = Sent(blocks=blocks, prefill_tokens=prefill_tokens)
        self._add(sent, 1)
        return sent

    def admit(self, sent: Sent, sample_number: int | None) -> None:
        """The worker has admitted the job, after it had made report ``sample_number``.

        Where it does not say which, the next report may have been on its way already; the second one has seen the job.
        """
        number = self._sample_number + 1 if sample_number is None else sample_number
        if number < self._sample_number:
            self.end(sent)
        elif sent.is_unseen:
            self._admitted.setdefault(number, []).append(sent)

    def end(self, sent: Sent) -> None:
        """The job has ended."""
        if sent.is_unseen:
            sent.is_unseen = False
            self._add(sent, -1)

    def receive_report(self, sample_number: int) -> None:
        """A new load report has come in."""
        self._sample_number = sample_number
        for number in [number for number in self._admitted if number < sample_number]:
            for sent in self._admitted.pop(number):
                self.end(sent)

    def _add(self, sent: Sent, sign: int) -> None:
        self.requests += sign
        self.blocks += sign * sent.blocks
        self.prefill_tokens += sign * sent.prefill_tokens
