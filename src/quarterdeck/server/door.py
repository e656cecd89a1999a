"""The ASGI application: every request passes the same checks in the same order, and every failure becomes a problem.

Head → host and site → who asks → how often → which right → parameters and body → handler. What comes first is cheapest and tells a
stranger least. An error that nobody planned is logged and answered with a bare 500; nothing of it reaches the caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from quarterdeck.app.runtime import Runtime
from quarterdeck.core.errors import QuarterdeckError, UsageError
from quarterdeck.core.identity import Principal
from quarterdeck.server import openapi
from quarterdeck.server.callers import Callers, Streams
from quarterdeck.server.exchange import Exchange, Stage, forbidden
from quarterdeck.server.gauges import Gauges
from quarterdeck.server.identity import Authenticator, KeyCache, LoopbackAnonymous
from quarterdeck.server.problems import PROBLEM, encoded, fault, response_of
from quarterdeck.server.reading import body_of, check_head, names_of, parameters_of, single
from quarterdeck.server.row import Row
from quarterdeck.server.settings import Settings
from quarterdeck.server.table import TABLE

_log = logging.getLogger(__name__)
STRANGER = Principal("", "user")
"""Who asks for what everybody may ask for; has no right at all."""
_ACTIONS = sorted({row.path.rpartition(":")[2] for row in TABLE if "}:" in row.path})


class _Name(Convertor[str]):
    """One path segment that names something, as it was sent; an action's suffix is no part of it (``%3A`` writes a colon that is)."""

    regex = "[^/]+" + "".join(f"(?<!:{action})" for action in _ACTIONS)

    def convert(self, value: str) -> str:
        """Decoded later, where a wrong encoding can be answered."""
        return value

    def to_string(self, value: str) -> str:
        """Not used: addresses are made by hand, where they are needed."""
        return value


register_url_convertor("name", _Name())


class Door:
    """The application. ``closing`` is set once when it stops: streams and waits end, and readiness says so."""

    def __init__(self, runtime: Runtime, authenticator: Authenticator, settings: Settings, keys: KeyCache | None = None) -> None:
        self.settings = settings
        self.closing = asyncio.Event()
        streams = Streams(settings)
        self._clock = runtime.parts.clock
        self._authenticator = authenticator
        self._callers = Callers(settings, self._clock)
        self.stage = Stage(
            runtime,
            settings,
            streams,
            Gauges(runtime, streams),
            self.closing,
            openapi.document(),
            isinstance(authenticator, LoopbackAnonymous),
            keys,
        )
        by_path: dict[str, dict[str, Row]] = {}
        for row in TABLE:
            by_path.setdefault(row.path, {})[row.verb] = row
        routes = [Route(path.replace("}", ":name}"), _Place(self, rows)) for path, rows in by_path.items()]
        self._router = Router(routes, redirect_slashes=False, default=_Place(self, {}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"this door serves http, not {scope['type']}")
        # Matched as it was sent: a slash or colon that belongs to a name is percent-encoded, and stays apart from those of the path.
        raw = scope["raw_path"].decode("ascii")
        await self._router({**scope, "path": raw, "root_path": ""}, receive, send)

    async def serve(self, rows: Mapping[str, Row], request: Request) -> None:
        """Answer a request to a place with these operations."""
        began_s = self._clock.monotonic_s()
        row = rows.get("GET" if request.method == "HEAD" else request.method)
        sent: list[int] = []
        try:
            response = await self._answer(rows, row, request)
        except QuarterdeckError as error:
            self.stage.gauges.refuse(error.code)
            response = response_of(error, _allowed(rows) if error.code == "http.method" else None)
        except Exception:  # the one broad except of the door
            _log.exception("a defect while %s %s was answered", request.method, row.path if row is not None else "?")
            response = Response(encoded(fault()), 500, {"content-type": PROBLEM})
        _add_headers(request, response)
        sent.append(response.status_code)
        try:
            await response(request.scope, request.receive, request["quarterdeck.send"])
        finally:
            verb = request.method if row is not None else "other"
            seconds = None if row is not None and row.lasting else self._clock.monotonic_s() - began_s
            self.stage.gauges.count(row.path if row is not None else "none", verb, sent[0], seconds)

    async def _answer(self, rows: Mapping[str, Row], row: Row | None, request: Request) -> Response:
        check_head(request, self.settings)
        if not rows:
            raise UsageError("http.not_found", "there is nothing at this path; /openapi.json lists what there is")
        if row is None:
            raise UsageError("http.method", f"this path does not understand {request.method[:20]!r}")
        principal = STRANGER
        if row.action is not None:
            principal = await self._authenticator.authenticate(single(request, "authorization"))
            self._callers.admit(f"{principal.kind}:{principal.subject}")
            if principal.tenants(row.action) == frozenset():
                raise forbidden(row.action)
        names = names_of(request.path_params)
        query = parameters_of(request, row.query)
        body = None
        if row.request is not None:
            body = await body_of(request, self.settings, required=row.body_required)
        return await row.handler(Exchange(self.stage, request, principal, row.action, names, query, body))


class _Place:
    """The operations of one path, as the router calls them."""

    def __init__(self, door: Door, rows: Mapping[str, Row]) -> None:
        self._door = door
        self._rows = rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["quarterdeck.send"] = send
        await self._door.serve(self._rows, Request(scope, receive))


def _allowed(rows: Iterable[str]) -> dict[str, str]:
    verbs = set(rows)
    return {"allow": ", ".join(sorted(verbs | ({"HEAD"} if "GET" in verbs else set())))}


def _add_headers(request: Request, response: Response) -> None:
    response.headers["x-content-type-options"] = "nosniff"
    trace = request.headers.get("traceparent")
    if trace is not None and len(trace) < 200 and trace.isascii():
        response.headers["traceparent"] = trace


def create_app(
    runtime: Runtime, authenticator: Authenticator | None, settings: Settings | None = None, keys: KeyCache | None = None
) -> Door:
    """The application of a running runtime; ``keys`` is the memory of its authenticator, if that has one.

    Without an authenticator it only comes to be where the settings say ``insecure_loopback`` and bind a loopback address; otherwise it
    raises :class:`UsageError` (``server.unauthenticated``, ``auth.anonymous_exposed``).
    """
    chosen = settings or Settings()
    if authenticator is None and not chosen.insecure_loopback:
        raise UsageError(
            "server.unauthenticated",
            "nothing is served without authentication; for development, bind a loopback address and set insecure_loopback",
        )
    return Door(runtime, authenticator or LoopbackAnonymous(chosen.host), chosen, keys)
