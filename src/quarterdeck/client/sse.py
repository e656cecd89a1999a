"""Server-sent events: bytes in, messages out.

A machine after the event stream interpretation of the HTML standard (section 9.2.6): lines end with CR, LF or CRLF, ``data`` lines add up,
a line that begins with a colon is a comment, a message without data is none, an ``id`` with NUL is ignored, what is unfinished at the
end is dropped. However the bytes are cut into pieces, the messages are the same. Stricter than a browser in two ways: what is no UTF-8
is an error, not a replacement character, and lines and messages have a largest size.

>>> parser = Parser()
>>> parser.feed(b"id: 7\\nevent: run.started\\nda"), parser.feed(b"ta: {}\\r\\n\\r")
([], [Message(data='{}', event='run.started', id='7', retry_ms=None)])
"""

from __future__ import annotations

import re

import msgspec

from quarterdeck.client.errors import ClientError

MAX_LINE_BYTES = 4_194_304
"""The longest line of a stream."""
MAX_MESSAGE_BYTES = 8_388_608
"""The largest message of a stream: all its lines together."""
MAX_RETRY_DIGITS = 9
"""A longer ``retry`` is ignored."""

_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Message(msgspec.Struct, frozen=True):
    """One message. ``id`` is what this very message said, ``None`` if it said nothing."""

    data: str
    event: str = "message"
    id: str | None = None
    retry_ms: int | None = None


class Parser:
    """Takes a stream piece by piece. Raises :class:`ClientError` (``client.stream``) for what no server of ours sends."""

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._max_message_bytes = max_message_bytes
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._first = True
        self._skip_lf = False
        self._reset()

    @property
    def unfinished(self) -> bool:
        """Whether something has begun that has not ended."""
        return bool(self._line_bytes or self._message_bytes)

    def feed(self, piece: bytes) -> list[Message]:
        """The messages that this piece completes."""
        start = 0
        if self._skip_lf and piece:
            self._skip_lf = False
            start = piece.startswith(b"\n")
        found = []
        for end in _END.finditer(piece, start):
            self._keep(piece[start : end.start()])
            message = self._take(self._whole_line())
            if message is not None:
                found.append(message)
            start = end.end()
        # A CR that ends a piece ends a line at once; if the next piece begins with LF, that belongs to it.
        self._skip_lf = start == len(piece) and piece.endswith(b"\r")
        self._keep(piece[start:])
        return found

    def _reset(self) -> None:
        self._data: list[str] = []
        self._event = ""
        self._id: str | None = None
        self._retry_ms: int | None = None
        self._message_bytes = 0

    def _keep(self, part: bytes) -> None:
        if part:
            self._line.append(part)
            self._line_bytes += len(part)
            if self._line_bytes > self._max_line_bytes:
                raise ClientError("client.stream", f"a line of the stream is longer than {self._max_line_bytes} bytes")

    def _whole_line(self) -> str:
        line = b"".join(self._line)
        self._line, self._line_bytes = [], 0
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise ClientError("client.stream", "the stream is not UTF-8") from None

    def _take(self, line: str) -> Message | None:
        if not line:
            return self._end()
        if line.startswith(":"):
            return None
        self._message_bytes += len(line.encode())
        if self._message_bytes > self._max_message_bytes:
            raise ClientError("client.stream", f"a message of the stream is larger than {self._max_message_bytes} bytes")
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) <= MAX_RETRY_DIGITS:
            self._retry_ms = int(value)
        return None

    def _end(self) -> Message | None:
        message = None
        if self._data:
            message = Message("\n".join(self._data), self._event or "message", self._id, self._retry_ms)
        self._reset()
        return message
