from __future__ import annotations

import io
import json

import pytest

from tidegate.client.output import JsonView, TextView, stats_line
from tidegate.client.stats import StreamStats
from tidegate.inference.v1.generation_pb2 import Delta, Started

_STATS = StreamStats(
    ttft_s=0.0631,
    itl_p50_s=0.0312,
    tokens_per_s=25.06,
    prompt_tokens=5,
    cached_prompt_tokens=0,
    output_tokens=7,
    kv_blocks=1,
    finish_reason="stop",
)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "expected"),
    [(_Terminal(), "]0;owned[2Jline\n\ttab"), (io.StringIO(), "\x1b]0;owned\x07\x1b[2Jline\n\ttab")],
)
def test_escape_sequences_of_a_model_never_reach_a_terminal(out: io.StringIO, expected: str) -> None:
    """A file gets the text as it is."""
    TextView(out, io.StringIO()).show(Delta(text=["\x1b]0;owned\x07", "\x1b[2Jline\n\ttab"]))

    assert expected == out.getvalue()


def test_statistics_do_not_mix_with_a_piped_answer() -> None:
    """They go beside it."""
    out, notes = io.StringIO(), io.StringIO()
    view = TextView(out, notes)
    view.show(Delta(text=["Paris"]))
    view.end()
    view.summarise(_STATS)

    assert "Paris\n" == out.getvalue()
    assert "7 tokens · TTFT 63.1 ms · ITL 31.2 ms · 25.1 tok/s · 1 KV block · stop\n" == notes.getvalue()


def test_a_single_token_has_a_dash_for_its_gap() -> None:
    """There is nothing to take a median of."""
    assert "ITL -" in stats_line(
        StreamStats(
            ttft_s=0.1,
            itl_p50_s=None,
            tokens_per_s=10,
            prompt_tokens=1,
            cached_prompt_tokens=0,
            output_tokens=1,
            kv_blocks=1,
            finish_reason="length",
        )
    )


def test_json_lines_are_the_json_form_of_the_protos() -> None:
    """Each line is one GenerateResponse, then the statistics."""
    out = io.StringIO()
    view = JsonView(out)
    view.show(Started(response_id="r", model="m", prompt_token_count=3))
    view.show(Delta(text=["Grüße"], token_ids=[7]))
    view.end()
    view.summarise(_STATS)

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {"started": {"response_id": "r", "model": "m", "prompt_token_count": 3}} == lines[0]
    assert {"delta": {"text": ["Grüße"], "token_ids": [7]}} == lines[1]
    assert 7 == lines[2]["stats"]["output_tokens"]
