"""Runs over HTTP: ask for one, look at them, follow, cancel, say how an unknown effect ended."""

from __future__ import annotations

import asyncio
import base64
import binascii
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from quarterdeck.app import shown
from quarterdeck.app.runtime import RunHandle, Runtime
from quarterdeck.app.views import RunResult
from quarterdeck.core.contract import Envelope
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Action, checked_subject
from quarterdeck.core.vocabulary import AdmissionAnswer, Mode
from quarterdeck.ports.store import RunRow
from quarterdeck.server import bodies, queries
from quarterdeck.server.exchange import Exchange, answer, forbidden
from quarterdeck.server.reading import Preference, preference_of, shaped, single, trace_of, wants_stream
from quarterdeck.server.streaming import EventStream, cursor_of, ended


async def submit(exchange: Exchange) -> Response:
    """Admit an envelope; answer at once, with the result, or with the stream, as the caller prefers."""
    envelope = enveloped(exchange)
    prefer = preference_of(exchange.request, exchange.stage.settings)
    streamed = wants_stream(exchange.request)
    if streamed:
        exchange.stage.streams.check(exchange.principal.subject)
    handle = await exchange.runtime.admit(envelope, submitted_by=submitter(exchange))
    headers = {"location": location(handle.id)}
    if handle.existing:
        headers["idempotency-replayed"] = "true"
    row = exchange.runtime.insights.run(handle.id)
    if row is None:
        raise UsageError("run.unknown", f"no run is called {handle.id!r}")
    content = exchange.contents(row.tenant, None)
    if streamed:
        cursor = cursor_of(exchange.request, None, row)
        return EventStream(exchange.stage, exchange.principal.subject, handle.id, cursor, content=content, headers=headers)
    wait_s = _patience(prefer, envelope, exchange, row)
    if prefer.wait_s is not None or prefer.respond_async:
        headers["preference-applied"] = "respond-async" if wait_s is None else f"wait={int(wait_s)}"
    done = wait_s is not None and await _ends(exchange, handle, wait_s)
    return answer(detail(exchange.runtime, handle.id, content=content), 200 if done else 202, headers)


async def listing(exchange: Exchange) -> Response:
    """A page of runs."""
    query = exchange.asked(queries.RunsQuery)
    tenants = exchange.tenants(query.tenant)
    before = None if query.cursor is None else opened(query.cursor, exchange, tenants)
    rows = exchange.runtime.insights.runs(
        status=query.status,
        route=query.route,
        tenants=tenants,
        correlation=query.correlation_id,
        before=before,
        limit=query.limit + 1,
    )
    page = rows[: query.limit]
    following = sealed(page[-1].run_id) if len(rows) > query.limit else None
    return answer(bodies.Runs(runs=tuple(summary(row) for row in page), next=following))


async def show(exchange: Exchange) -> Response:
    """One run."""
    row = exchange.run(exchange.names["run_id"])
    content = exchange.contents(row.tenant, exchange.asked(queries.RunQuery).content)
    return answer(detail(exchange.runtime, row.run_id, content=content))


async def events(exchange: Exchange) -> Response:
    """A run's events as a stream. Whoever asks for what is after the end of a run is told that there is nothing (204)."""
    row = exchange.run(exchange.names["run_id"])
    query = exchange.asked(queries.EventsQuery)
    content = exchange.contents(row.tenant, query.content)
    cursor = cursor_of(exchange.request, query.after, row)
    if ended(row, cursor):
        return Response(status_code=204, headers={"cache-control": "no-store"})
    exchange.stage.streams.check(exchange.principal.subject)
    return EventStream(exchange.stage, exchange.principal.subject, row.run_id, cursor, follow=query.follow, content=content)


async def cancel(exchange: Exchange) -> Response:
    """Stop a run; harmless when repeated."""
    row = exchange.run(exchange.names["run_id"])
    wanted = shaped({} if exchange.body is None else exchange.body, bodies.Cancel)
    await exchange.runtime.cancel(row.run_id, reason=wanted.reason, by=exchange.principal.subject, mode=wanted.mode)
    return answer(summary(exchange.run(row.run_id)), 202)


async def resolve(exchange: Exchange) -> Response:
    """Say how an unknown effect ended."""
    row = exchange.run(exchange.names["run_id"])
    said = shaped(exchange.body, bodies.Resolve)
    await exchange.runtime.resolve(
        row.run_id,
        said.call,
        done=said.done,
        by=exchange.principal.subject,
        result=said.result,
        retry=said.retry,
        reason=said.reason,
    )
    return answer(summary(exchange.run(row.run_id)), 202)


async def signal(exchange: Exchange) -> Response:
    """Send a run a message; under one ``Idempotency-Key`` it is one message, however often it is sent."""
    row = exchange.run(exchange.names["run_id"])
    said = shaped(exchange.body, bodies.Signal)
    await exchange.runtime.signal(row.run_id, said.name, said.payload, by=exchange.principal.subject, token=token_of(exchange))
    return answer(summary(exchange.run(row.run_id)), 202)


async def pause(exchange: Exchange) -> Response:
    """Let a run begin nothing new; harmless when repeated."""
    row = exchange.run(exchange.names["run_id"])
    said = shaped({} if exchange.body is None else exchange.body, bodies.Because)
    await exchange.runtime.pause(row.run_id, reason=said.reason, by=exchange.principal.subject, token=token_of(exchange))
    return answer(summary(exchange.run(row.run_id)), 202)


async def resume(exchange: Exchange) -> Response:
    """Let a run go on; harmless when repeated."""
    row = exchange.run(exchange.names["run_id"])
    said = shaped({} if exchange.body is None else exchange.body, bodies.Resume)
    by, token = exchange.principal.subject, token_of(exchange)
    await exchange.runtime.resume(row.run_id, reason=said.reason, by=by, done=said.done, token=token)
    return answer(summary(exchange.run(row.run_id)), 202)


def token_of(exchange: Exchange, said: str | None = None, field: str = "token") -> str | None:
    """What makes the repetition of an order the same order: the header ``Idempotency-Key``, or what a field of the body says.

    Raises :class:`UsageError` (``http.header``) where both are there and differ.
    """
    header = _unquoted(single(exchange.request, "idempotency-key"))
    if header is not None and said not in (None, header):
        raise UsageError("http.header", f"the header Idempotency-Key and the field {field} differ; send one of them")
    return said if header is None else header


async def mark(exchange: Exchange) -> Response:
    """Say of one decision that it was wrong."""
    row = exchange.run(exchange.names["run_id"])
    said = shaped(exchange.body, bodies.Mark)
    await exchange.runtime.mark(row.run_id, said.call, by=exchange.principal.subject, reason=said.reason, wrong=said.wrong)
    return answer(summary(exchange.run(row.run_id)))


def enveloped(exchange: Exchange) -> Envelope:
    """The envelope of a request, its caller and key checked against who really asks and what the header says."""
    envelope = shaped(exchange.body, Envelope)
    body = exchange.body if isinstance(exchange.body, dict) else {}
    said = body.get("caller")
    named = said if isinstance(said, dict) else {}
    tenant = envelope.caller.tenant if "tenant" in named else default_tenant(exchange)
    user = envelope.caller.user if "user" in named else None
    key = token_of(exchange, envelope.idempotency_key, "idempotency_key")
    return msgspec.structs.replace(
        envelope,
        caller=msgspec.structs.replace(envelope.caller, tenant=tenant, user=acting_for(exchange, tenant, user)),
        idempotency_key=key,
        correlation_id=envelope.correlation_id or trace_of(exchange.request),
    )


def default_tenant(exchange: Exchange) -> str:
    """The tenant of who does not name one: the only one it may submit for, or ``default``."""
    tenants = exchange.tenants_for(Action.RUNS_SUBMIT)
    if tenants is not None and len(tenants) == 1:
        return next(iter(tenants))
    return "default"


def submitter(exchange: Exchange) -> str:
    """Who asks, as the contract records it; nobody where nobody has to say who they are."""
    return "" if exchange.stage.anonymous else exchange.principal.subject


def acting_for(exchange: Exchange, tenant: str, user: str | None) -> str:
    """On whose behalf a run acts: the principal itself, unless it may act for others in that tenant."""
    exchange.require(tenant)
    principal = exchange.principal
    if user is None:
        return "anonymous" if exchange.stage.anonymous else principal.subject
    if user != principal.subject and not principal.may(Action.ACT_FOR_OTHERS, tenant) and principal.kind != "service":
        raise forbidden(Action.ACT_FOR_OTHERS)
    return user if user == principal.subject else checked_subject(user)


def location(run_id: str) -> str:
    """Where a run is."""
    return f"/v1/runs/{quote(run_id, safe='')}"


def detail(runtime: Runtime, run_id: str, *, content: bool) -> bodies.RunDetail:
    """One run in full."""
    return msgspec.convert(shown.run_in_full(runtime.show(run_id), content=content), bodies.RunDetail)


def sealed(place: str) -> str:
    """A list's cursor: opaque to clients, so that what it is made of may change."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def unsealed(cursor: str) -> str:
    """The place that a cursor names; raises :class:`UsageError` (``cursor.unknown``) for what no list gave."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise unknown_cursor() from None


def unknown_cursor() -> UsageError:
    """The one answer to every cursor that is not the caller's, so that it says nothing about anybody else's rows."""
    return UsageError("cursor.unknown", "this cursor names no place in the list; start from the first page")


def opened(cursor: str, exchange: Exchange, tenants: frozenset[str] | None) -> str:
    """The run that a cursor names, if it is one of these tenants'."""
    place = unsealed(cursor)
    row = exchange.runtime.insights.run(place)
    if row is None or not (tenants is None or row.tenant in tenants):
        raise unknown_cursor()
    return place


def _patience(prefer: Preference, envelope: Envelope, exchange: Exchange, row: RunRow) -> float | None:
    """How long to wait for the result: as preferred; for a ``sync`` run as long as its route's latency allows; else not at all.

    A ``sync`` run that takes longer, or would have to wait before it begins, is handed off: its caller gets a link, the run goes on.
    """
    if prefer.wait_s is not None or prefer.respond_async:
        return prefer.wait_s
    route = exchange.runtime.deck.routes.get(row.route)
    # A run that was there already may be of a route that this deck has no more.
    if route is None or (envelope.mode or route.modes[0]) is not Mode.SYNC:
        return None
    if detail(exchange.runtime, row.run_id, content=False).admission is AdmissionAnswer.WAIT:
        return None
    longest_s = exchange.stage.settings.max_wait_s
    return longest_s if route.latency_ms is None else min(longest_s, route.latency_ms / 1_000)


async def _ends(exchange: Exchange, handle: RunHandle, wait_s: float) -> bool:
    """Whether the run ends within so many seconds; the run goes on whatever happens here. A closing door waits no longer."""
    waiting: asyncio.Future[RunResult] = asyncio.ensure_future(handle.result())
    closing = asyncio.ensure_future(exchange.stage.closing.wait())
    try:
        done, _ = await asyncio.wait((waiting, closing), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        return waiting in done and waiting.result().done
    finally:
        waiting.cancel()
        closing.cancel()
        await asyncio.gather(waiting, closing, return_exceptions=True)


def _unquoted(key: str | None) -> str | None:
    """An ``Idempotency-Key`` as text: the standard to come has it in quotation marks, most clients do not."""
    if key is not None and len(key) > 2 and key[0] == key[-1] == '"':
        return key[1:-1]
    return key


def summary(row: RunRow) -> bodies.Run:
    """One run as lists show it."""
    return msgspec.convert(shown.run(row), bodies.Run)
