"""What a client has seen of its generation: one object per request, over all its attempts.

Messages come here as the wire has them, whole and with their prefixes, one or several at a time, and leave for the
client as this says. They are not parsed on the way. What was delivered is kept, so that it can be read when a worker is
lost; it is read into token ids, four bytes each, whenever it has grown to a few kilobytes. So another worker can go on.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from google.protobuf.message import DecodeError
from grpc import StatusCode

from gateway.workers.errors import WorkerCallError
from tidegate.http2.messages import PREFIX_BYTES, is_one_message
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.status import WORKER_DOMAIN, RpcError

_UNFINISHED = RpcError(
    code=StatusCode.INTERNAL, reason="ENGINE_ERROR", domain=WORKER_DOMAIN, message="OK without Finished"
)
_MAX_UNREAD_BYTES: Final = 4096
# A megabyte of them.
_MAX_KEPT_TOKENS: Final = 2**18


class Passage:
    """Follows the messages of a request on their way to the client."""

    __slots__ = (
        *("_last_words", "_on_next", "_max_kept_tokens", "_text_bytes", "_token_ids", "_tokens", "_unread"),
        *("finished", "has_begun"),
    )

    def __init__(self, *, max_kept_tokens: int = _MAX_KEPT_TOKENS) -> None:
        """Of an output of more than ``max_kept_tokens`` none are kept: ``is_whole`` is false then."""
        self.has_begun = False
        self.finished: generation_pb2.Finished | None = None  # once the generation has ended well
        self._last_words = b""  # the latest message, if it is Finished
        self._unread = bytearray()  # messages with a Delta, without prefixes: end to end they are their merge
        self._token_ids: array[int] | None = None  # none yet
        self._on_next: Callable[[], None] | None = None
        self._tokens = 0
        self._text_bytes = 0
        self._max_kept_tokens = max_kept_tokens

    def resume(self, token_ids: Sequence[int], text_bytes: int) -> None:
        """The client has these tokens, and so much of their text, from an earlier call."""
        self._keep(token_ids)
        self._tokens += len(token_ids)
        self._text_bytes += text_bytes

    def expect(self, on_next: Callable[[], None]) -> None:
        """Call ``on_next`` when the next message comes, before it goes to the client."""
        self._on_next = on_next

    def pass_on(self, chunk: bytes) -> bytes:
        """Whole messages of the worker; returns what the client shall get for them, which may be nothing."""
        self.has_begun = True
        if self._on_next is not None:
            on_next, self._on_next = self._on_next, None
            on_next()
        if is_one_message(chunk):
            self._note(chunk[PREFIX_BYTES:])
        else:
            for message in messages_of(chunk):
                self._note(message)
        return chunk

    def end(self) -> None:
        """The worker ended the stream with OK. Raises ``WorkerCallError`` if it did so too early."""
        if self.finished is not None:
            return
        if not self.is_complete:
            raise WorkerCallError(_UNFINISHED)
        self.finished = inference_service_pb2.GenerateResponse.FromString(self._last_words).finished

    def ends_well(self) -> bool:
        """As ``end``, where it is to be known whether that would raise."""
        try:
            self.end()
        except (WorkerCallError, DecodeError):
            return False
        return True

    @property
    def is_complete(self) -> bool:
        """Whether the client has been sent Finished, whatever the status that follows it."""
        return bool(self._last_words)

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompt that came out of the worker's cache, once it has told."""
        return None if self.finished is None else self.finished.usage.cached_prompt_token_count

    @property
    def token_ids(self) -> array[int]:
        """The tokens that the client has been sent, if ``is_whole``."""
        self._read()
        return array("i") if self._token_ids is None else self._token_ids

    @property
    def text_bytes(self) -> int:
        """How much of their text, in UTF-8."""
        self._read()
        return self._text_bytes

    @property
    def is_whole(self) -> bool:
        """Whether all of the tokens were kept."""
        self._read()
        return self._tokens <= self._max_kept_tokens

    @property
    def tokens(self) -> int:
        """How many tokens the client has been sent."""
        if self.finished is not None:
            return self.finished.usage.output_token_count
        self._read()
        return self._tokens

    def _note(self, message: bytes) -> None:
        # Started and Finished hold no tokens; being of one oneof with it they would clear a Delta in the merge.
        kind = message[0] if message else 0
        self._last_words = message if kind == _FINISHED_TAG else b""
        if kind == _DELTA_TAG:
            self._unread += message
            if len(self._unread) > _MAX_UNREAD_BYTES:
                self._read()

    def _read(self) -> None:
        if not self._unread:
            return
        delta = inference_service_pb2.GenerateResponse.FromString(bytes(self._unread)).delta
        self._unread.clear()
        self._tokens += len(delta.token_ids)
        self._text_bytes += len("".join(delta.text).encode())
        if self._tokens <= self._max_kept_tokens:
            self._keep(delta.token_ids)
        else:
            self._token_ids = None

    def _keep(self, token_ids: Sequence[int]) -> None:
        if self._token_ids is None:
            self._token_ids = array("i")
        self._token_ids.extend(token_ids)


# Each is the first byte of a response with that event.
_DELTA_TAG: Final[int] = inference_service_pb2.GenerateResponse.DELTA_FIELD_NUMBER << 3 | 2
_FINISHED_TAG: Final[int] = inference_service_pb2.GenerateResponse.FINISHED_FIELD_NUMBER << 3 | 2


def messages_of(chunk: bytes) -> Iterator[bytes]:
    """The messages of ``chunk``, without their prefixes."""
    at = 0
    while at < len(chunk):
        start = at + PREFIX_BYTES
        at = start + int.from_bytes(chunk[at:start], "big")
        yield chunk[start:at]
