"""A connection's own conversation: SETTINGS, PING, GOAWAY, time-outs, and what a peer pays for frames."""

from __future__ import annotations

from typing import cast

from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame

from tidegate.http2 import frames
from tidegate.http2.endpoint import Endpoint
from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.flow import WindowOverflowError
from tidegate.http2.limits import DEFAULT_WINDOW_BYTES, Abuse, Budgets
from tidegate.http2.outbound import Outbound
from tidegate.http2.settings import PeerSettings, announced
from tidegate.http2.stream_table import StreamTable
from tidegate.http2.streams import EndCause, StreamEnd

_KEEPALIVE = b"tdgalive"
_DRAIN = b"tdgdrain"


class Session:
    """What is said on stream 0."""

    def __init__(self, endpoint: Endpoint, outbound: Outbound, streams: StreamTable) -> None:
        """``start`` says the first words."""
        self.peer = PeerSettings()
        self.settings_received = False
        self.is_draining = False  # we have sent GOAWAY: no new streams, the open ones finish
        self.peer_is_leaving = False  # it has sent GOAWAY
        self._is_closed = False
        self._is_client = endpoint.is_client
        self._limits = endpoint.limits
        self._clock = endpoint.clock
        self._outbound = outbound
        self._streams = streams
        self._budgets = Budgets(endpoint.limits, endpoint.clock)
        self._settings_acknowledged = False
        self._window_updates = 0
        self._sent_before_ping = 0  # bytes of DATA, before the peer's latest one
        self._last_accepted_id: int | None = None  # once the final GOAWAY has named it
        self._started_at_s = self._heard_at_s = endpoint.clock()
        self._pinged_at_s: float | None = None
        self._drain_pinged_at_s: float | None = None

    def start(self) -> None:
        """Send our part of the connection preface."""
        if self._is_client:
            self._outbound.write(frames.PREFACE)
        self._outbound.write(frames.settings(announced(self._limits, is_client=self._is_client)))
        widening = self._limits.connection_window_bytes - DEFAULT_WINDOW_BYTES
        if widening > 0:
            self._outbound.write(frames.window_update(0, widening))

    # Opening and refusing streams.

    @property
    def can_open(self) -> bool:
        """Whether a client may open a stream now."""
        limit = self.peer.max_concurrent_streams
        has_room = limit is None or len(self._streams.open) < limit
        return has_room and self._streams.has_ids and not self.is_leaving

    @property
    def is_leaving(self) -> bool:
        """Whether this connection takes no new streams, for whichever side's reasons."""
        return self.is_draining or self.peer_is_leaving or self._is_closed

    @property
    def is_finished(self) -> bool:
        """Whether the socket should be closed: nothing is open, and nothing may be opened."""
        if self._is_closed:
            return True
        if self._streams.open:
            return False
        return self.is_leaving if self._is_client else self._last_accepted_id is not None

    @property
    def accepts_requests(self) -> bool:
        """Whether a server still takes new streams: until the final GOAWAY of a drain."""
        return self._last_accepted_id is None

    def refuse(self, stream_id: int) -> None:
        """Tell the client that nothing was done for the stream, so that it may try again elsewhere."""
        self._outbound.write(frames.rst_stream(stream_id, ErrorCode.REFUSED_STREAM))
        self._streams.remember_reset(stream_id)

    def spend(self, abuse: Abuse) -> None:
        """Let the peer pay for a frame. Raises ``Http2ConnectionError`` when it cannot."""
        if not self._budgets.spend(abuse):
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, abuse.value, abuse=abuse)

    def count_window_update(self) -> None:
        """The peer has widened a window: honest ones do so for what they have got, and were promised no more."""
        self._window_updates += 1
        if self._window_updates > self._limits.spare_window_updates + 4 * self._outbound.written_parts:
            raise Http2ConnectionError(
                ErrorCode.ENHANCE_YOUR_CALM, "too many WINDOW_UPDATEs", abuse=Abuse.WINDOW_UPDATE_FLOOD
            )

    # Ends.

    def drain(self) -> None:
        """End gracefully: no new streams soon, and the connection closes with its last one.

        A server says so in two steps, so that requests which cross the first GOAWAY are still served (RFC 9113, 6.8).
        """
        if self.is_draining or self.is_finished:
            return
        self.is_draining = True
        if self._is_client:
            self._outbound.write(frames.goaway(0, ErrorCode.NO_ERROR))
        else:
            self._outbound.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self._outbound.write(frames.ping(_DRAIN))
            self._drain_pinged_at_s = self._clock()

    def close(self, code: ErrorCode, message: str = "") -> None:
        """End at once."""
        if not self.is_finished:
            self._outbound.write(frames.goaway(0 if self._is_client else self._streams.last_id, code, message))
        self._is_closed = True

    def abandon(self) -> None:
        """The socket is gone."""
        self._is_closed = True

    def _name_last_stream(self) -> None:
        if self._last_accepted_id is None:
            self._last_accepted_id = self._streams.last_id
            self._outbound.write(frames.goaway(self._last_accepted_id, ErrorCode.NO_ERROR))

    # Time.

    def heard(self) -> None:
        """The peer has sent something."""
        self._heard_at_s = self._clock()
        self._pinged_at_s = None

    def check_time(self) -> None:
        """Send what is due. Raises ``Http2ConnectionError`` for what is overdue."""
        now_s = self._clock()
        limits = self._limits
        if not self.settings_received and now_s - self._started_at_s > limits.preface_timeout_s:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "no preface in time", abuse=Abuse.SLOW_PREFACE)
        if not self._settings_acknowledged and now_s - self._started_at_s > 2 * limits.preface_timeout_s:
            raise Http2ConnectionError(ErrorCode.SETTINGS_TIMEOUT, "SETTINGS not acknowledged in time")
        if self._drain_pinged_at_s is not None and now_s - self._drain_pinged_at_s > 1:
            self._name_last_stream()
        if self._pinged_at_s is not None:
            if now_s - self._pinged_at_s > limits.keepalive_timeout_s:
                raise Http2ConnectionError(ErrorCode.NO_ERROR, "keepalive time-out")
        elif now_s - self._heard_at_s > limits.keepalive_s:
            self._outbound.write(frames.ping(_KEEPALIVE))
            self._pinged_at_s = now_s

    # Frames.

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """SETTINGS, PING, GOAWAY; PRIORITY and unknown frames, which are ignored."""
        if kind == frames.PING:
            self._on_ping(cast("PingFrame", frames.parse(kind, flags, stream_id, payload)))
        elif kind == frames.SETTINGS and flags & frames.ACK and payload:
            raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
        elif kind == frames.SETTINGS:
            self._on_settings(cast("SettingsFrame", frames.parse(kind, flags, stream_id, payload)))
        elif kind == frames.GOAWAY:
            self._on_goaway(cast("GoAwayFrame", frames.parse(kind, flags, stream_id, payload)))
        else:
            self.spend(Abuse.IGNORED_FRAME_FLOOD)
            if kind == frames.PRIORITY:
                frames.parse(kind, flags, stream_id, payload)

    def _on_ping(self, frame: PingFrame) -> None:
        if "ACK" not in frame.flags:
            # Clients measure with one how much is on its way: grpc-go for each DATA that finds none under way, which is
            # each one on a short way. Those are as many as we make them.
            sent_bytes = self._outbound.sent_data_bytes
            if sent_bytes == self._sent_before_ping:
                self.spend(Abuse.PING_FLOOD)
            self._sent_before_ping = sent_bytes
            self._outbound.write(frames.ping(frame.opaque_data, ack=True))
        elif frame.opaque_data == _DRAIN and self._drain_pinged_at_s is not None:
            self._name_last_stream()

    def _on_settings(self, frame: SettingsFrame) -> None:
        self.spend(Abuse.SETTINGS_FLOOD)
        if "ACK" in frame.flags:
            self._settings_acknowledged = True
            return
        self.settings_received = True
        widening = self.peer.update(frame.settings, from_server=self._is_client)
        self._outbound.write(frames.settings_ack())
        if widening:
            try:
                for stream in list(self._streams.open.values()):  # what it sends now may be the last of a stream
                    stream.widen(widening)
            except WindowOverflowError as error:
                raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, str(error)) from error

    def _on_goaway(self, frame: GoAwayFrame) -> None:
        self.peer_is_leaving = True
        if not self._is_client:
            return  # it opens no more streams; what is open finishes, and then it closes
        for stream in [s for s in self._streams.open.values() if s.id > frame.last_stream_id]:
            stream.discard()
            stream.handler.on_end(StreamEnd(EndCause.REFUSED, frame.error_code))
