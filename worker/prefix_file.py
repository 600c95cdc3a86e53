r"""The file of prefixes to have in the cache from the start: a JSON object a line, with ``text`` or ``token_ids``.

    {"text": "<|im_start|>system\nYou are the assistant of ...<|im_end|>\n"}
    {"token_ids": [1, 9690, 198]}

Text is tokenised as it stands: it has to be what the model sees, rendered. ``Tokenize`` shows both forms.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer


def read_prefix_file(path: Path, tokenizer_json: bytes) -> list[list[int]]:
    """The prefixes' token ids. Raises ``ValueError`` that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold U+2028, which splitlines takes for an end
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    prefixes: list[list[int]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prefixes.append(_token_ids(json.loads(line), tokenizer))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return prefixes


def _token_ids(item: object, tokenizer: Tokenizer) -> list[int]:
    match item:
        case {"text": str(text)}:
            return list(tokenizer.encode(text, add_special_tokens=False).ids)
        case {"token_ids": [*token_ids]}:
            size = tokenizer.get_vocab_size()
            if not all(isinstance(token_id, int) and 0 <= token_id < size for token_id in token_ids):
                raise ValueError(f"token_ids go from 0 to {size - 1}")
            return token_ids
        case _:
            raise ValueError('not an object with "text" or "token_ids"')
