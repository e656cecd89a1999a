"""Performing what flows ask for, over httpx2: once blocking, once awaiting. Nothing is decided here.

The key is put into a request here, and leaves this module in no other way: outcomes are data, and hold neither the request nor the
library's exception, whose request has the key in its headers.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import TypeVar, assert_never

import httpx2

from quarterdeck.client import moment
from quarterdeck.client.address import Key
from quarterdeck.client.errors import ClientError
from quarterdeck.client.wire import (
    NOTHING,
    Act,
    Answer,
    Chunk,
    Course,
    Ended,
    Flow,
    Lost,
    Nothing,
    Open,
    Opened,
    Outcome,
    Pause,
    Read,
    Request,
    Send,
    Show,
    Shut,
    Told,
)

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_ANSWER_BYTES = 33_554_432
"""A longer answer is not read to its end."""
KEEP_ALIVE_S = 15.0
"""How long an unused connection is kept: less than servers keep it, so that a request seldom meets one that is just closing."""
KEPT_CONNECTIONS = 20
"""The most unused connections that are kept."""

_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S)
_FAILURES = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL)


class Destination:
    """Where requests go and what they carry: root, key, TLS."""

    def __init__(self, root: str, key: Key, tls: ssl.SSLContext | None) -> None:
        self.root = root
        self._key = key
        # For plain HTTP an empty context, which trusts nobody and is quick to make.
        self.tls: ssl.SSLContext | bool = tls or (root.startswith("https:") or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def headers(self, request: Request) -> list[tuple[str, str]]:
        """A request's headers, with the key as it is now."""
        said = [*request.headers, ("accept-encoding", "identity"), ("user-agent", "quarterdeck-client")]
        key = self._key.text()
        return said if key is None else [*said, ("authorization", f"Bearer {key}")]

    def blotted(self, text: str) -> str:
        """A text without the key, should somebody have put it there."""
        key = self._key.text()
        return text if key is None else text.replace(key, "[key]")


def _built(http: httpx2.Client | httpx2.AsyncClient, to: Destination, act: Send | Open) -> httpx2.Request:
    request, patience = act.request, act.silence_s if isinstance(act, Open) else act.timeout_s
    timeout = httpx2.Timeout(act.timeout_s, read=patience)
    url = httpx2.URL(to.root + request.path, params=request.query or None)
    return http.build_request(request.method, url, headers=to.headers(request), content=request.body, timeout=timeout)


def lost_of(error: Exception, to: Destination) -> Lost:
    """What an exception of the library means."""
    if isinstance(error, httpx2.ConnectError) and _is_distrust(error):
        return Lost("client.tls", "the server's certificate is not trusted", sent=False, passing=False)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Lost("client.unreachable", to.blotted(f"no connection to {to.root} ({_said(error)})"), sent=False)
    if isinstance(error, httpx2.TimeoutException):
        return Lost("client.timeout", "no answer in time", sent=True)
    if isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return Lost("client.broken", to.blotted(f"the connection broke ({_said(error)})"), sent=True)
    # What remains is a request that cannot be sent; the library's words could hold its headers.
    return Lost("client.request", f"the request cannot be sent ({type(error).__name__})", sent=False, passing=False)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_distrust(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Body:
    """An answer's body as it comes, within its bounds of size and time."""

    def __init__(self, response: httpx2.Response, until_s: float) -> None:
        self._response = response
        self._until_s = until_s
        self._pieces: list[bytes] = []
        self._size = 0
        self.wrong: Lost | None = None
        if response.headers.get("content-encoding", "identity") != "identity":
            self.wrong = Lost("client.answer", "the answer is compressed, which was not asked for", sent=True, passing=False)

    def takes(self, piece: bytes) -> bool:
        """Take a piece; false if no more is wanted."""
        self._size += len(piece)
        self._pieces.append(piece)
        if self._size > MAX_ANSWER_BYTES:
            self.wrong = Lost("client.answer", f"the answer is longer than {MAX_ANSWER_BYTES} bytes", sent=True, passing=False)
        elif moment.monotonic_s() > self._until_s:
            self.wrong = Lost("client.timeout", "the answer did not end in time", sent=True)
        return self.wrong is None

    def outcome(self, to: Destination) -> Answer | Lost:
        """The answer, or what is wrong with it."""
        if self.wrong is not None:
            return self.wrong
        body, status = b"".join(self._pieces), self._response.status_code
        if status >= 300:
            body = to.blotted(body.decode("utf-8", "replace")).encode()
        return Answer(status, _headers(self._response), body)


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _is_stream(act: Send | Open, response: httpx2.Response) -> bool:
    return isinstance(act, Open) and response.status_code == 200


class _Line:
    """What one flow has open."""

    def __init__(self) -> None:
        self.response: httpx2.Response | None = None
        self.pieces: Iterator[bytes] | AsyncIterator[bytes] | None = None

    def let_go(self) -> httpx2.Response | None:
        """What has to be closed."""
        response, self.response, self.pieces = self.response, None, None
        return response


class Blocking:
    """Performs flows in the calling thread. May be shared by threads."""

    def __init__(self, to: Destination) -> None:
        self._to = to
        self._http = httpx2.Client(verify=to.tls, trust_env=False, follow_redirects=False, limits=_LIMITS)

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def do(self, flow: Flow[Item, Result]) -> Result:
        """Carry a flow to its result; its items are dropped."""
        course = Course(flow)
        for _ in self._items(course):
            pass
        return course.result

    def each(self, flow: Flow[Item, object]) -> Iterator[Item]:
        """The items of a flow. Whoever stops early lets go of the connection."""
        return self._items(Course(flow))

    def _items(self, course: Course[Item, Result]) -> Generator[Item, None, None]:
        line = _Line()
        try:
            while (command := course.command) is not None:
                if isinstance(command, Show):
                    yield command.item
                    course.tell(NOTHING)
                else:
                    began_s = moment.monotonic_s()
                    outcome = self._perform(command, line)
                    course.tell(Told(outcome, began_s, moment.monotonic_s(), moment.luck()))
        finally:
            course.close()
            self._shut(line)

    def _perform(self, act: Act, line: _Line) -> Outcome:
        match act:
            case Send() | Open():
                return self._send(act, line)
            case Read():
                return self._read(line)
            case Shut():
                self._shut(line)
            case Pause(seconds):
                if seconds:
                    moment.sleep(seconds)
            case _:
                assert_never(act)
        return Nothing()

    def _send(self, act: Send | Open, line: _Line) -> Outcome:
        if self._http.is_closed:
            raise closed()
        until_s = moment.monotonic_s() + act.timeout_s
        try:
            response = self._http.send(_built(self._http, self._to, act), stream=True)
            line.response = response
            if _is_stream(act, response):
                line.pieces = response.iter_raw()
                return Opened(_headers(response))
            body = _Body(response, until_s)
            if body.wrong is None:
                for piece in response.iter_raw():
                    if not body.takes(piece):
                        break
            self._shut(line)
            return body.outcome(self._to)
        except _FAILURES as error:
            self._shut(line)
            return lost_of(error, self._to)

    def _read(self, line: _Line) -> Outcome:
        if not isinstance(line.pieces, Iterator):
            raise RuntimeError("nothing is open")
        try:
            piece = next(line.pieces, None)
        except _FAILURES as error:
            self._shut(line)
            return lost_of(error, self._to)
        if piece is not None:
            return Chunk(piece)
        self._shut(line)
        return Ended()

    def _shut(self, line: _Line) -> None:
        response = line.let_go()
        if response is not None:
            response.close()


class Awaiting:
    """Performs flows on an event loop."""

    def __init__(self, to: Destination) -> None:
        self._to = to
        self._http = httpx2.AsyncClient(verify=to.tls, trust_env=False, follow_redirects=False, limits=_LIMITS)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def do(self, flow: Flow[Item, Result]) -> Result:
        """Carry a flow to its result; its items are dropped."""
        course = Course(flow)
        async for _ in self._items(course):
            pass
        return course.result

    def each(self, flow: Flow[Item, object]) -> AsyncGenerator[Item, None]:
        """The items of a flow. Whoever stops early closes the generator (``contextlib.aclosing``)."""
        return self._items(Course(flow))

    async def _items(self, course: Course[Item, Result]) -> AsyncGenerator[Item, None]:
        line = _Line()
        try:
            while (command := course.command) is not None:
                if isinstance(command, Show):
                    yield command.item
                    course.tell(NOTHING)
                else:
                    began_s = moment.monotonic_s()
                    outcome = await self._perform(command, line)
                    course.tell(Told(outcome, began_s, moment.monotonic_s(), moment.luck()))
        finally:
            course.close()
            await self._shut(line)

    async def _perform(self, act: Act, line: _Line) -> Outcome:
        match act:
            case Send() | Open():
                return await self._send(act, line)
            case Read():
                return await self._read(line)
            case Shut():
                await self._shut(line)
            case Pause(seconds):
                if seconds:
                    await moment.sleep_awaiting(seconds)
            case _:
                assert_never(act)
        return Nothing()

    async def _send(self, act: Send | Open, line: _Line) -> Outcome:
        if self._http.is_closed:
            raise closed()
        until_s = moment.monotonic_s() + act.timeout_s
        try:
            response = await self._http.send(_built(self._http, self._to, act), stream=True)
            line.response = response
            if _is_stream(act, response):
                line.pieces = response.aiter_raw()
                return Opened(_headers(response))
            body = _Body(response, until_s)
            if body.wrong is None:
                async for piece in response.aiter_raw():
                    if not body.takes(piece):
                        break
            await self._shut(line)
            return body.outcome(self._to)
        except _FAILURES as error:
            await self._shut(line)
            return lost_of(error, self._to)

    async def _read(self, line: _Line) -> Outcome:
        if not isinstance(line.pieces, AsyncIterator):
            raise RuntimeError("nothing is open")
        try:
            piece = await anext(line.pieces, None)
        except _FAILURES as error:
            await self._shut(line)
            return lost_of(error, self._to)
        if piece is not None:
            return Chunk(piece)
        await self._shut(line)
        return Ended()

    async def _shut(self, line: _Line) -> None:
        response = line.let_go()
        if response is not None:
            await response.aclose()


def closed() -> ClientError:
    """The error of a client that is used after its end."""
    return ClientError("client.closed", "this client is closed; make another")
