"""Canaries: conversations with the rendering that the reference makes of them (worker/canary_reference.py).

A gateway renders without transformers. Before it sends traffic it renders these too, and compares text and token ids. A
checkpoint that brings its own ``canaries.json`` can be served without transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import json_format

from tidegate.worker.v1 import worker_service_pb2


def read_canaries(path: Path) -> tuple[worker_service_pb2.Canary, ...]:
    """Read a ``canaries.json``: a list of ``tidegate.worker.v1.Canary`` in proto3 JSON. Raises ``ValueError``."""
    items = json.loads(path.read_bytes())
    if not isinstance(items, list):
        raise ValueError("not a list")  # noqa: TRY004 - the file's content is at fault, not an argument's type
    if not all(isinstance(item, dict) for item in items):
        raise ValueError("not a list of objects")
    try:
        return tuple(json_format.ParseDict(item, worker_service_pb2.Canary()) for item in items)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error


def write_canaries(path: Path, canaries: Iterable[worker_service_pb2.Canary]) -> None:
    """Write what ``read_canaries`` reads."""
    items = [json_format.MessageToDict(canary, preserving_proto_field_name=True) for canary in canaries]
    path.write_text(json.dumps(items, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
