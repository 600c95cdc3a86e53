"""The table of bad requests: each is refused with its reason, names every offending field, and goes nowhere."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from google.protobuf import text_format

from gateway.errors import GatewayError, to_rpc
from gateway.model import ServedModel
from gateway.prompt import fit, token_ids
from gateway.request import ValidRequest, parse_generate
from tests.fakes.bad_requests import BAD_REQUESTS, USER, Row
from tests.fakes.served_models import served_model
from tidegate.inference.v1.inference_service_pb2 import GenerateRequest
from tidegate.rpc.token_ids import TOKEN_ID_BYTES


def _serve(request: GenerateRequest, models: Mapping[str, ServedModel], handed_on: list[ValidRequest]) -> None:
    """What comes before a worker is chosen."""
    valid = parse_generate(request, models)
    fit(valid, len(token_ids(valid)) // TOKEN_ID_BYTES)
    handed_on.append(valid)


@pytest.mark.parametrize("row", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_request_is_refused_by_field(row: Row) -> None:
    """Reason, code and every offending field are told, in trailers that clients accept; nothing is handed on."""
    request = text_format.Parse(f'model: "m" {row.prompt} {row.text}', GenerateRequest())
    row.change(request)
    handed_on: list[ValidRequest] = []
    with pytest.raises(GatewayError) as caught:
        _serve(request, {"m": row.model or served_model()}, handed_on)
    refusal = to_rpc(caught.value)
    assert [] == handed_on
    assert (row.code, row.reason) == (refusal.code, refusal.reason)
    assert row.fields == tuple(violation.field for violation in refusal.violations)
    assert refusal.to_proto().ByteSize() < 7 * 1024


def test_the_table_is_long_enough() -> None:
    """The issue asks for at least 60 bad requests."""
    assert len(BAD_REQUESTS) >= 60


def test_a_good_request_is_handed_on() -> None:
    """The request that every row spoils is a good one."""
    handed_on: list[ValidRequest] = []
    request = text_format.Parse(f'model: "m" chat {{ {USER} }}', GenerateRequest())
    _serve(request, {"m": served_model()}, handed_on)
    assert 1 == len(handed_on)
