"""Canonical JSON (RFC 8785) of untrusted text, and digests over it.

What an approver sees, what the gate judges and what a tool executes must be the same bytes. So everything that a model or a
caller sends as JSON comes in through :func:`parse` (which refuses whatever two readers could read differently) and is compared,
hashed and stored only in the form of :func:`canonical`.

>>> canonical(parse('{"b": 1, "a": "x"}'))
b'{"a":"x","b":1}'
>>> parse('{"a": 1, "a": 2}')
Traceback (most recent call last):
...
quarterdeck.core.errors.UsageError: json.duplicate_key: the key 'a' appears twice in one object; send each key once
"""

from __future__ import annotations

import hashlib
import json
import math

import msgspec
import orjson
import rfc8785

from quarterdeck.core.errors import UsageError

MAX_BYTES = 262_144
"""The longest JSON text that is read, in bytes."""
MAX_DEPTH = 32
"""The deepest nesting of arrays and objects that is read."""
MAX_INTEGER = 2**53 - 1
"""The largest integer that JSON readers agree on; send money as integer cents, larger numbers as strings."""
_EXPONENT = 1e21
"""From here on the canonical form of a number has an exponent; below it, a whole number is written as an integer."""

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
"""A JSON value as Python holds it."""


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UsageError("json.duplicate_key", f"the key {key!r} appears twice in one object; send each key once")
            seen.add(key)
    return found


def _integer(text: str) -> int:
    if len(text) > 17 or abs(number := int(text)) > MAX_INTEGER:
        raise UsageError("json.number", "an integer is beyond 2^53-1, where readers disagree; send it as a string")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UsageError("json.number", "a number is too large to represent; send it as a string")
    if MAX_INTEGER < abs(number) < _EXPONENT:
        raise UsageError("json.number", "a number is beyond 2^53-1, where readers disagree; send it as a string")
    return number


def _constant(name: str) -> Json:
    raise UsageError("json.number", f"{name} is not JSON; send a finite number, a string or null")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)


def parse(text: str | bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Json:
    """Read untrusted JSON text, or raise :class:`UsageError` with a ``json.*`` code.

    Refused: invalid UTF-8, text that is not JSON, duplicate keys, NaN and infinities, integers beyond 2^53-1, lone surrogates,
    NUL characters, nesting beyond ``max_depth``, more than ``max_bytes`` bytes. Time and memory are bounded by those limits.
    """
    if len(text) > max_bytes:
        raise UsageError("json.too_large", f"the JSON text is longer than {max_bytes} bytes; send less")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        elif not text.isascii() and len(text.encode("utf-8")) > max_bytes:
            raise UsageError("json.too_large", f"the JSON text is longer than {max_bytes} bytes; send less")
    except UnicodeError:
        raise UsageError("json.encoding", "the text is not valid UTF-8; send UTF-8 without lone surrogates") from None
    if text.count("{") + text.count("[") > max_depth and _depth(text) > max_depth:
        raise UsageError("json.too_deep", f"the JSON is nested deeper than {max_depth} levels; flatten it")
    try:
        value: Json = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UsageError("json.invalid", f"not JSON: {error.msg} at character {error.pos}") from None
    if "\\u" in text or "\x00" in text:
        _check_text(value)
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    inside = escaped = False
    for char in text:
        if inside:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
    return deepest


def _check_text(value: Json) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise UsageError("json.nul", "a string holds a NUL character, which stores cannot keep; remove it")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise UsageError("json.encoding", "a string holds a lone surrogate; send valid Unicode")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def _plain(value: object) -> bool:
    """Whether ``orjson`` writes this exactly as RFC 8785 does: no floats, no integers beyond 2^53-1, string keys only."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -MAX_INTEGER <= value <= MAX_INTEGER  # type: ignore[operator]
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]  # noqa: SIM110 - the hot path: no generator
            if type(key) is not str or not (type(item) is str or _plain(item)):
                return False
        return True
    if kind is list:
        for item in value:  # type: ignore[attr-defined]  # noqa: SIM110
            if not _plain(item):
                return False
        return True
    return False


def read(raw: str) -> tuple[Json, bytes]:
    """What :func:`parse` and :func:`canonical` give for one text, with the same refusals; the way of the hot path.

    Plain ASCII text without escapes is read by the quick parser, which keeps the last of two equal keys: then its canonical form has
    fewer quotation marks than the text, and the careful parser decides.

    >>> read('{"b": 1, "a": "x"}')
    ({'b': 1, 'a': 'x'}, b'{"a":"x","b":1}')
    """
    if len(raw) <= MAX_BYTES and "\\" not in raw and raw.isascii() and raw.count("{") + raw.count("[") <= MAX_DEPTH:
        try:
            value: Json = orjson.loads(raw)
        except orjson.JSONDecodeError:
            value = parse(raw)
        if _plain(value):
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            if text.count(b'"') == raw.count('"'):
                return value, text
    value = parse(raw)
    return value, canonical(value)


def canonical(value: object) -> bytes:
    """The RFC 8785 form of a JSON value.

    The quick writer is taken only where it is provably equal: plain values and pure ASCII output (key order by code point and by
    UTF-16 unit agree there, and both escape alike). Raises :class:`UsageError` (``json.unrepresentable``) for what is not JSON.
    """
    if _plain(value):
        try:
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except (TypeError, ValueError):
            raise UsageError("json.encoding", "a string holds a lone surrogate; send valid Unicode") from None
        if text.isascii():
            return text
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise UsageError("json.unrepresentable", f"the value has no canonical JSON form: {error}") from None


def digest(prefix: str, payload: bytes) -> str:
    """SHA-256, in hex, of a line-framed prefix and canonical bytes. The prefix's fields hold no line breaks, so framing is exact."""
    return hashlib.sha256(prefix.encode() + payload).hexdigest()


def strictly(encoder: msgspec.json.Encoder, value: object) -> bytes:
    """What code has returned, as JSON. Raises what the encoder raises, and ``ValueError`` for NaN and infinities: JSON has none, and the
    encoder makes ``null`` of them without a word.

    >>> strictly(msgspec.json.Encoder(), {"mean": 1.5, "worst": None})
    b'{"mean":1.5,"worst":null}'
    >>> strictly(msgspec.json.Encoder(), {"mean": float("nan")})
    Traceback (most recent call last):
    ...
    ValueError: it holds NaN or an infinity, which JSON does not have; return None or a text
    """
    encoded = encoder.encode(value)
    if b"null" in encoded and not _is_finite(value):
        raise ValueError("it holds NaN or an infinity, which JSON does not have; return None or a text")
    return encoded


def _is_finite(value: object) -> bool:
    waiting: list[object] = [msgspec.to_builtins(value, enc_hook=lambda _: None)]  # what is JSON text already has none
    while waiting:
        one = waiting.pop()
        if isinstance(one, float):
            if not math.isfinite(one):
                return False
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting.extend(one)
    return True
