"""What a job asks of a worker, as far as routing is concerned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
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
