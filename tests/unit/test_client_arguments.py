from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tidegate.client.__main__ import app

NO_UTF8 = "a\udcff"  # as Python has an argument that is none


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("chat", "--max-output-tokens", "99999999999", "hi"), "--max-output-tokens"),
        (("chat", "--seed", "99999999999999999999", "hi"), "--seed"),
        (("chat", "--timeout", "inf", "hi"), "--timeout"),
        (("chat", "--target", "", "hi"), "--target"),
        (("chat", "--system", NO_UTF8, "hi"), "--system"),
        (("chat", NO_UTF8), "is not UTF-8"),
        (("tokenize", "--model", NO_UTF8, "hi"), "--model"),
        (("bench", "--concurrency", "0"), "--concurrency"),
        (("bench", "--concurrency", "1,-1"), "--concurrency"),
        (("bench", "--output-tokens", "99999999999"), "--output-tokens"),
        (("bench", "--prompt-tokens", "99999999999"), "--prompt-tokens"),
        (("serve", "--engine", "sim", "--listen", "foo"), "--listen"),
        (("serve", "--engine", "sim", "--listen", "127.0.0.1:0"), "--listen"),
        (("serve", "--engine", "sim", "--listen", "127.0.0.1:99999"), "--listen"),
    ],
)
def test_what_no_message_can_hold_is_a_wrong_command_line(words: tuple[str, ...], named: str) -> None:
    """What is wrong is named, and nobody is asked."""
    ended = CliRunner().invoke(app, words)
    assert 2 == ended.exit_code
    assert named in ended.output
