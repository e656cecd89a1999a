"""What owner and writer say to each other: length-prefixed MessagePack frames over a socket pair."""

from __future__ import annotations

import msgspec

from quarterdeck.core.commit import Op, Outcome, Refused

HEADER = 4
"""Bytes of the big-endian length before each frame."""
FAULT = 74
"""The exit code of a writer after a fault of the storage (``EX_IOERR``); its report may have been lost on the way."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A group of operations; ``number`` is echoed in the reply."""

    number: int
    ops: list[Op]


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The outcomes of one request, in order; or, if ``fault`` is set, why the writer has stopped (nothing was answered)."""

    number: int
    outcomes: list[Outcome]
    fault: str = ""


class _Loose(msgspec.Struct, frozen=True, array_like=True):
    number: int
    ops: list[msgspec.Raw]


_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_loose: msgspec.msgpack.Decoder[_Loose] = msgspec.msgpack.Decoder(_Loose)
_op: msgspec.msgpack.Decoder[Op] = msgspec.msgpack.Decoder(Op)
replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def frame(message: Request | Reply) -> bytes:
    """A message as it goes over the wire."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEADER, "big") + body


def read(body: bytes) -> tuple[Request, dict[int, Refused]]:
    """A request, and the answers to those of its operations that cannot be read, by their place; the request is without them."""
    try:
        return _requests.decode(body), {}
    except msgspec.ValidationError:
        loose = _loose.decode(body)
    ops: list[Op] = []
    poison: dict[int, Refused] = {}
    for place, raw in enumerate(loose.ops):
        try:
            ops.append(_op.decode(raw))
        except msgspec.ValidationError as error:
            poison[place] = Refused("poison", str(error)[:200])
    return Request(loose.number, ops), poison


def split(buffer: bytearray) -> list[bytes]:
    """Take every complete frame out of ``buffer``; what is incomplete stays in it.

    >>> data = bytearray(b"\\0\\0\\0\\1a\\0\\0\\0\\2b")
    >>> split(data), bytes(data)
    ([b'a'], b'\\x00\\x00\\x00\\x02b')
    """
    found: list[bytes] = []
    start = 0
    while len(buffer) - start >= HEADER:
        end = start + HEADER + int.from_bytes(buffer[start : start + HEADER], "big")
        if len(buffer) < end:
            break
        found.append(bytes(buffer[start + HEADER : end]))
        start = end
    if start:
        del buffer[:start]
    return found
