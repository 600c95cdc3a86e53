"""What a job asks of a worker, as far as routing is concerned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True, init=False)
class Demand:
    """Tokens that a job brings and may grow to.

    ``prefix`` names the beginnings of the prompt, each ``prefix_stride`` tokens longer than the one before; two prompts
    with the same name share all tokens up to there.
    """

    prompt_tokens: int
    need_tokens: int  # prompt and the longest output
    prefix: tuple[int, ...] = ()
    prefix_stride: int = 1
    digest: bytes = b""  # of all that the engine is asked to do; empty where it does not matter

    def __init__(
        self,
        *,
        prompt_tokens: int,
        need_tokens: int,
        prefix: tuple[int, ...] = (),
        prefix_stride: int = 1,
        digest: bytes = b"",
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.need_tokens = need_tokens
        self.prefix = prefix
        self.prefix_stride = prefix_stride
        self.digest = digest


@dataclass(slots=True, kw_only=True, init=False)
class Fit:
    """What a job has to find on a worker to be sent there now.

    That is room for ``expected_tokens``, a place in its batch or before it, and time to compute its prompt. Where other
    prompts wait to be computed, all with its own come to ``prefill_line_tokens`` at most; None is no bound. Unless the
    worker is idle, ``spare_tokens`` are to be left over there or elsewhere (``kept_room``) for others, which hold
    ``mean_tokens`` on average.
    """

    expected_tokens: int
    spare_tokens: int = 0
    mean_tokens: int = 0
    prefill_line_tokens: int | None = None

    def __init__(
        self,
        *,
        expected_tokens: int,
        spare_tokens: int = 0,
        mean_tokens: int = 0,
        prefill_line_tokens: int | None = None,
    ) -> None:
        self.expected_tokens = expected_tokens
        self.spare_tokens = spare_tokens
        self.mean_tokens = mean_tokens
        self.prefill_line_tokens = prefill_line_tokens
