from __future__ import annotations

import pytest
from grpc import StatusCode

from tidegate.http2.errors import ErrorCode
from tidegate.http2.grpc_status import Status
from tidegate.http2.messages import CompressedMessageError, MessageReader, MessageTooLargeError, framed
from tidegate.http2.metadata import decode_metadata, encode_metadata, format_timeout, parse_timeout
from tidegate.http2.request_head import HeadRefusalError, HttpRefusalError, parse_head
from tidegate.http2.streams import EndCause, StreamEnd

_HEAD = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/package.Service/Method"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc+proto"),
]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600.0), (b"2M", 120.0), (b"3S", 3.0), (b"250m", 0.25), (b"7u", 7e-6), (b"99999999n", 0.099999999)],
)
def test_timeout_is_read_in_every_unit(value: bytes, seconds: float) -> None:
    """Six units, at most eight digits."""
    assert pytest.approx(seconds) == parse_timeout(value)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"1s", b"-1S", b"1.5S", b"123456789S", b" 1S", b"\xd9\xa1S"])
def test_malformed_timeout_is_none(value: bytes) -> None:
    """What is not exactly digits and a unit is not a timeout."""
    assert parse_timeout(value) is None


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (0.05, b"50000000n"),
        (1.5, b"1500000u"),
        (3600.0, b"3600000m"),
        (10**6, b"1000000S"),
        (10**9, b"99999999S"),
        (0, b"1n"),
        (-5, b"1n"),
        (1e-12, b"1n"),
    ],
)
def test_timeout_is_written_as_exactly_as_eight_digits_allow(seconds: float, value: bytes) -> None:
    """The past becomes the shortest timeout there is; zero would be malformed for some."""
    assert value == format_timeout(seconds)


def test_metadata_survives_the_wire() -> None:
    """Text stays text and -bin stays bytes; the protocol's own fields are not metadata."""
    metadata = (
        ("x-request-id", "r 1"),
        ("blob-bin", b"\x00\xff\x10"),
        ("empty-bin", b""),
        ("again", "1"),
        ("again", "2"),
    )
    assert metadata == decode_metadata([*_HEAD, (b"grpc-timeout", b"1S"), *encode_metadata(metadata)])


@pytest.mark.parametrize("value", [b"AP8Q", b"AP8Q,AP8Q", b" AP8Q"])
def test_binary_metadata_may_be_padded_or_joined(value: bytes) -> None:
    """Peers differ in how they write base64."""
    assert {b"\x00\xff\x10"} == {v for _, v in decode_metadata([(b"a-bin", value)])}


def test_binary_metadata_that_is_not_base64_is_dropped() -> None:
    """One bad field does not cost the call."""
    assert () == decode_metadata([(b"a-bin", b"!!!")])


@pytest.mark.parametrize("bad", [("grpc-status", "0"), (":path", "/"), ("a", "line\nfeed"), ("a", "\x7f")])
def test_metadata_that_would_break_the_protocol_is_refused(bad: tuple[str, str]) -> None:
    """An application cannot smuggle fields into a section."""
    with pytest.raises(ValueError, match=r"."):
        encode_metadata([bad])


@pytest.mark.parametrize("message", ["plain", "100 % sure", "tab\tand\nnewline", "über 🚀", "", "a" * 3000])
def test_status_survives_the_wire(message: str) -> None:
    """grpc-message is percent-encoded UTF-8."""
    status = Status(code=StatusCode.NOT_FOUND, message=message, metadata=(("grpc-status-details-bin", b"\x01"),))
    fields = status.fields()
    assert all(0x20 <= byte < 0x7F for _, value in fields for byte in value)
    assert status == Status.from_trailers(fields)


@pytest.mark.parametrize(
    ("fields", "http_status", "code"),
    [
        ([(b"grpc-status", b"999")], b"200", StatusCode.UNKNOWN),
        ([(b"grpc-status", b"-1")], b"200", StatusCode.UNKNOWN),
        ([], b"200", StatusCode.UNKNOWN),
        ([], b"503", StatusCode.UNAVAILABLE),
        ([], b"404", StatusCode.UNIMPLEMENTED),
        ([], b"418", StatusCode.UNKNOWN),
        ([(b"grpc-status", b"5")], b"503", StatusCode.NOT_FOUND),
    ],
)
def test_missing_status_is_taken_from_http(
    fields: list[tuple[bytes, bytes]], http_status: bytes, code: StatusCode
) -> None:
    """A proxy may answer for the server."""
    assert code is Status.from_trailers(fields, http_status=http_status).code


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (StreamEnd(EndCause.RESET_BY_PEER, ErrorCode.CANCEL), StatusCode.CANCELLED),
        (StreamEnd(EndCause.RESET_BY_PEER, ErrorCode.ENHANCE_YOUR_CALM), StatusCode.RESOURCE_EXHAUSTED),
        (StreamEnd(EndCause.RESET_BY_PEER, 4711), StatusCode.INTERNAL),
        (StreamEnd(EndCause.REFUSED, ErrorCode.REFUSED_STREAM), StatusCode.UNAVAILABLE),
        (StreamEnd(EndCause.CONNECTION_LOST, ErrorCode.NO_ERROR), StatusCode.UNAVAILABLE),
        (StreamEnd(EndCause.PEER_FAULT, ErrorCode.PROTOCOL_ERROR), StatusCode.INTERNAL),
    ],
)
def test_early_end_maps_to_a_status(end: StreamEnd, code: StatusCode) -> None:
    """RST_STREAM codes mean what grpc's PROTOCOL-HTTP2 says."""
    assert code is Status.from_end(end).code


def test_messages_are_cut_from_any_chunks() -> None:
    """Neither empty messages nor boundaries inside a prefix matter."""
    messages = [b"", b"one", b"x" * 1000, b""]
    stream = b"".join(framed(m) for m in messages)
    for size in (1, 2, 3, 7, 1024):
        reader = MessageReader(1000)
        got = [m for at in range(0, len(stream), size) for m in reader.feed(stream[at : at + size])]
        assert messages == got
        assert not reader.has_partial


def test_message_above_the_limit_is_refused_by_its_prefix() -> None:
    """Nothing is gathered for a message that will not be taken."""
    with pytest.raises(MessageTooLargeError):
        MessageReader(10).feed(framed(bytes(11))[:5])
    with pytest.raises(MessageTooLargeError):
        MessageReader(10).feed(framed(bytes(11)))


def test_compressed_message_is_refused() -> None:
    """Nobody offered to decompress."""
    with pytest.raises(CompressedMessageError):
        MessageReader(10).feed(b"\x01\x00\x00\x00\x01x")


@pytest.mark.parametrize(
    ("change", "http_status"),
    [
        ((b":method", b"GET"), b"405"),
        ((b"content-type", b"application/json"), b"415"),
        ((b"content-type", b"application/grpcweb"), b"415"),
    ],
)
def test_request_that_is_not_grpc_gets_an_http_status(change: tuple[bytes, bytes], http_status: bytes) -> None:
    """A browser or a load balancer's probe understands that."""
    with pytest.raises(HttpRefusalError) as refusal:
        parse_head(list((dict(_HEAD) | dict([change])).items()), max_list_bytes=10_000)
    assert http_status == refusal.value.http_status


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ((b"grpc-encoding", b"gzip"), StatusCode.UNIMPLEMENTED),
        ((b"grpc-timeout", b"soon"), StatusCode.INTERNAL),
        ((b"x", b"y" * 10_000), StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_request_that_cannot_be_served_gets_a_grpc_status(field: tuple[bytes, bytes], code: StatusCode) -> None:
    """Which can be sent, as it is."""
    with pytest.raises(HeadRefusalError) as refusal:
        parse_head([*_HEAD, field], max_list_bytes=10_000)
    assert code is refusal.value.status.code
    assert (b"grpc-status", b"%d" % code.value[0]) in refusal.value.status.fields()


def test_head_is_read() -> None:
    """Method and time-out of a good request, and the fields that hold its metadata."""
    head = parse_head([*_HEAD, (b"grpc-timeout", b"1500m"), (b"x-a", b"b")], max_list_bytes=10_000)
    assert ("/package.Service/Method", 1.5) == (head.method, head.timeout_s)
    assert (("x-a", "b"),) == decode_metadata(head.fields)
