"""Reading what a stranger sends: heads, bodies, parameters. Everything that two readers could read differently is refused.

Bodies are read by :func:`quarterdeck.core.canonical.parse`, so duplicate keys, NaN, over-long digits, over-deep nesting, lone surrogates
and NUL never come further than this module. The deadlines of receipt are kept below, by the protocol.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.requests import ClientDisconnect, Request

from quarterdeck.core.canonical import Json, parse
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.server.settings import Settings

T = TypeVar("T")

BIG_BODY = 16_384
"""Bodies larger than this are parsed in a thread, so that nobody else waits for them."""
MAX_PARAMETERS = 32
"""The most query parameters of one request."""
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;\s*charset=\"?utf-8\"?\s*)?\Z", re.IGNORECASE)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_NO_CHOICE = re.compile(r"Invalid enum value .* - at `\$\.(\w+)`\Z", re.DOTALL)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def check_head(request: Request, settings: Settings) -> None:
    """Refuse a head that is too large, names a foreign host, or was sent by a page of another site."""
    headers = request.headers
    if len(headers.raw) > settings.max_headers:
        raise UsageError("http.head_too_large", f"more than {settings.max_headers} headers; send fewer")
    # The parser's own limit is for heads that come in pieces; one that comes at once is measured here.
    size = len(request.scope["raw_path"]) + len(request.scope["query_string"]) + sum(len(n) + len(v) for n, v in headers.raw)
    if size > settings.max_head_bytes:
        raise UsageError("http.head_too_large", f"the head is longer than {settings.max_head_bytes} bytes; send less")
    if not request.scope["raw_path"].startswith(b"/"):
        raise UsageError("http.malformed", "the request's target must begin with a slash")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise UsageError("http.malformed", "the body's length is said in two ways; send Content-Length or Transfer-Encoding")
    accepted, host = settings.accepted_hosts, headers.get("host", "")
    if accepted is not None and _hostname(host) not in accepted:
        raise UsageError("http.host", "this door does not serve that host name; use its own, or list it in `hosts`")
    if request.method not in _SAFE:
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2].casefold() != host.casefold()
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused("http.cross_site", "a page of another site may not do this")


def _hostname(host: str) -> str:
    """The name of a ``Host`` header without its port.

    >>> _hostname("LOCALHOST:8321"), _hostname("[::1]:80"), _hostname("[::1]")
    ('localhost', '[::1]', '[::1]')
    """
    end = host.find("]") + 1
    return (host[:end] if end else host.partition(":")[0]).casefold()


async def body_of(request: Request, settings: Settings, *, required: bool) -> Json:
    """The JSON body of a request; ``None`` where there is none and none is required."""
    headers, limit = request.headers, settings.max_body_bytes
    declared = headers.get("content-length", "0")
    if len(declared) > 15 or int(declared) > limit:  # digits only: the protocol has seen to it
        raise UsageError("http.body_too_large", f"the body is longer than {limit} bytes; send less")
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise UsageError("http.body_too_large", f"the body is longer than {limit} bytes; send less")
            chunks.append(chunk)
    except ClientDisconnect:
        raise UsageError("http.timeout", "the body did not arrive") from None
    if not size and not required:
        return None
    if not size and "content-type" not in headers:
        raise UsageError("http.body_invalid", "a body is needed here; send it as application/json (/openapi.json shows its form)")
    if not _JSON.match(headers.get("content-type", "")) or headers.get("content-encoding", "identity") != "identity":
        raise UsageError("http.media_type", "send the body as application/json in UTF-8, without encoding")
    body = b"".join(chunks)
    if size > BIG_BODY:
        return await asyncio.to_thread(parse, body, max_bytes=limit, max_depth=settings.max_depth)
    return parse(body, max_bytes=limit, max_depth=settings.max_depth)


def shaped(value: Json, kind: type[T]) -> T:
    """A body as its struct; raises :class:`UsageError` (``http.body_invalid``), which says where it does not fit."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError("http.body_invalid", f"the body does not fit: {error}{_choices(str(error), kind)}") from None


def _choices(error: str, kind: type) -> str:
    """The words that would have been right, where a field of the outermost object is none of them; else nothing.

    >>> from quarterdeck.server.bodies import Cancel
    >>> _choices("Invalid enum value 'x' - at `$.mode`", Cancel)
    '; use one of stop, drain, compensate'
    """
    found = _NO_CHOICE.match(error)
    if found is None:
        return ""
    field = next(each for each in msgspec.structs.fields(kind) if each.encode_name == found[1])
    known = msgspec.inspect.type_info(field.type)
    for option in known.types if isinstance(known, msgspec.inspect.UnionType) else (known,):
        if isinstance(option, msgspec.inspect.LiteralType):
            return f"; use one of {', '.join(sorted([str(value) for value in option.values]))}"
        if isinstance(option, msgspec.inspect.EnumType):
            return f"; use one of {', '.join([each.value for each in option.cls])}"
    return ""


def parameters_of(request: Request, kind: type[T]) -> T:
    """The query's parameters as their struct; each at most once, none unknown."""
    raw = request.scope["query_string"]
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise UsageError("http.query_invalid", "the query is not made of name=value pairs in UTF-8") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UsageError("http.query_invalid", "a parameter is given twice; give each once")
    try:
        made = msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError("http.query_invalid", f"the query does not fit: {error}{_choices(str(error), kind)}") from None
    if any(getattr(made, name) is None for name in found):  # the converter takes the word `null` for nothing
        raise UsageError("http.query_invalid", "the query does not fit: leave a parameter out instead of sending null")
    return made


def names_of(params: Mapping[str, str]) -> dict[str, str]:
    """Path parameters, decoded once; what is no UTF-8 names nothing."""
    try:
        return {name: unquote(value, errors="strict") for name, value in params.items()}
    except UnicodeDecodeError:
        raise UsageError("http.not_found", "there is nothing at this path") from None


def single(request: Request, name: str) -> str | None:
    """A header that may be there once, or ``None``."""
    found = request.headers.getlist(name)
    if len(found) > 1:
        raise UsageError("http.header", f"the header {name} is given more than once")
    return found[0].strip() if found else None


class Preference(msgspec.Struct, frozen=True):
    """What a ``Prefer`` header (RFC 7240) asks for."""

    wait_s: float | None = None
    respond_async: bool = False


def preference_of(request: Request, settings: Settings) -> Preference:
    """How long a caller wants to wait for the result; what it prefers beyond that is ignored, as the standard says."""
    wait_s, respond_async = None, False
    for part in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = (piece.strip() for piece in part.partition(";")[0].partition("="))
        if name.casefold() == "respond-async":
            respond_async = True
        elif name.casefold() == "wait" and value.strip('"').isascii() and value.strip('"').isdigit() and len(value) < 12:
            wait_s = min(float(value.strip('"')), settings.max_wait_s)
    return Preference(wait_s, respond_async)


def trace_of(request: Request) -> str | None:
    """The trace id of a valid W3C ``traceparent``; one that is not valid is ignored, as the standard says."""
    found = request.headers.getlist("traceparent")
    match = _TRACEPARENT.match(found[0]) if len(found) == 1 else None
    return match[1] if match else None


def wants_stream(request: Request) -> bool:
    """Whether the caller asks for server-sent events."""
    return any(
        part.partition(";")[0].strip().casefold() == "text/event-stream" for part in request.headers.get("accept", "").split(",")
    )
