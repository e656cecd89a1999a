"""Each verb as data: the request that it sends, and how its answer is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Generic, TypeVar

import msgspec

from quarterdeck.client import shapes
from quarterdeck.client.address import segment
from quarterdeck.client.errors import ClientError
from quarterdeck.client.wire import Answer, Request

T = TypeVar("T")

PAGE = 100
"""Rows that a list asks for at once."""
SYNC_WAIT_S = 60.0
"""How long the answer to a ``sync`` run is waited for, if the caller does not say."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)\Z")
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_ANSWERS = (("accept", "application/json, application/problem+json"),)
_WRITES = (*_ANSWERS, ("content-type", "application/json"))


class Call(msgspec.Struct, Generic[T], frozen=True):
    """A request with the reader of its answer. ``wait_s`` is how much longer than usual the answer may take."""

    request: Request
    read: Callable[[Answer], T]
    wait_s: float = 0.0


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may consume at most; it can only narrow what its route allows.

    ``turns`` are rounds of the loop, ``tools`` tool calls, ``tokens`` all tokens of all model calls, ``context`` tokens of one model
    call, ``deadline`` wall-clock time from admission (``"15s"``, or seconds), ``usd`` money (``"0.20"``; text is exact).
    """

    turns: int | None = None
    tools: int | None = None
    tokens: int | None = None
    context: int | None = None
    deadline: str | float | None = None
    usd: str | float | None = None

    def fields(self) -> dict[str, object]:
        """The same, as an envelope spells it. Raises :class:`ClientError` (``client.budget``) for what is no time or no money.

        >>> Budget(turns=3, deadline="15s", usd="0.20").fields()
        {'deadline_ms': 15000, 'max_steps': 3, 'max_cost_usd': '0.20'}
        """
        spelled = {
            "deadline_ms": None if self.deadline is None else _milliseconds(self.deadline),
            "max_steps": self.turns,
            "max_tools": self.tools,
            "max_tokens": self.tokens,
            "max_context": self.context,
            "max_cost_usd": None if self.usd is None else _dollars(self.usd),
        }
        return {name: value for name, value in spelled.items() if value is not None}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked for with; ``None`` leaves a field to the server."""

    intent: str
    payload: object = None
    tenant: str | None = None
    user: str | None = None
    budget: Budget | None = None
    idempotency_key: str
    correlation_id: str | None = None
    thread_id: str | None = None
    ordering_key: str | None = None
    priority: str | None = None
    mode: str | None = None
    labels: Mapping[str, str] | None = None
    wait_s: float | None = None


class Submitted(msgspec.Struct, frozen=True):
    """A run that was asked for; ``existing``: an earlier request under the same key had made it."""

    run: shapes.RunDetail
    existing: bool


def submit(order: Order) -> Call[Submitted]:
    """``POST /v1/runs``. The body is made once, so that every attempt sends the same bytes under the same key."""
    caller = {name: value for name, value in (("tenant", order.tenant), ("user", order.user)) if value is not None}
    optional = {
        "caller": caller or None,
        "budget": None if order.budget is None else order.budget.fields() or None,
        "correlation_id": order.correlation_id,
        "thread_id": order.thread_id,
        "ordering_key": order.ordering_key,
        "priority": order.priority,
        "mode": order.mode,
        "labels": None if order.labels is None else dict(order.labels),
    }
    body = {"intent": order.intent, "payload": order.payload, "idempotency_key": order.idempotency_key}
    body |= {name: value for name, value in optional.items() if value is not None}
    wait_s = order.wait_s
    if wait_s is None and order.mode == "sync":
        wait_s = SYNC_WAIT_S
    seconds = 0 if wait_s is None else math.ceil(checked_seconds("wait_s", wait_s))
    prefer = f"wait={seconds}" if seconds else "respond-async"
    request = Request(method="POST", path="/v1/runs", headers=(*_WRITES, ("prefer", prefer)), body=encoded(body))
    return Call(request, _submitted, float(seconds))


def _submitted(answer: Answer) -> Submitted:
    return Submitted(decoded(answer, shapes.RunDetail), answer.headers.get("idempotency-replayed") == "true")


def show(run_id: str, *, content: bool | None = None) -> Call[shapes.RunDetail]:
    """``GET /v1/runs/{run_id}``."""
    query = () if content is None else (("content", _flag(content)),)
    return _get(f"/v1/runs/{segment(run_id)}", shapes.RunDetail, query)


def cancel(run_id: str, reason: str, mode: str = "compensate") -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:cancel``; harmless when repeated."""
    return _post(f"/v1/runs/{segment(run_id)}:cancel", shapes.RunSummary, {"reason": reason, "mode": mode})


def interrupt(run_id: str, payload: object, token: str) -> Call[shapes.RunDetail]:
    """``POST /v1/runs/{run_id}:interrupt``; the same token again changes nothing."""
    said = {"payload": payload, "token": token}
    return _post(f"/v1/runs/{segment(run_id)}:interrupt", shapes.RunDetail, said)


def escalate(run_id: str, reason: str) -> Call[shapes.Escalated]:
    """``POST /v1/runs/{run_id}:escalate``."""
    return _post(f"/v1/runs/{segment(run_id)}:escalate", shapes.Escalated, {"reason": reason})


def raise_budget(run_id: str, budget: Budget, reason: str, token: str) -> Call[shapes.RunDetail]:
    """``POST /v1/runs/{run_id}:budget``; the same token again changes nothing."""
    said = {"budget": budget.fields(), "reason": reason, "token": token}
    return _post(f"/v1/runs/{segment(run_id)}:budget", shapes.RunDetail, said)


def fork(run_id: str, step: str, key: str, *, edited: bool, result: object, route: str | None) -> Call[shapes.RunDetail]:
    """``POST /v1/runs/{run_id}:fork``; the same key again is the same fork."""
    said = {"step": step, "edited": edited, "result": result, "route": route}
    return _post(f"/v1/runs/{segment(run_id)}:fork", shapes.RunDetail, said, (("idempotency-key", key),))


def replay(run_id: str) -> Call[shapes.Replay]:
    """``POST /v1/runs/{run_id}:replay``."""
    return _post(f"/v1/runs/{segment(run_id)}:replay", shapes.Replay, {})


def effects() -> Call[shapes.Doubts]:
    """``GET /v1/effects``."""
    return _get("/v1/effects", shapes.Doubts)


def oversight() -> Call[shapes.Oversight]:
    """``GET /v1/oversight``."""
    return _get("/v1/oversight", shapes.Oversight)


def mark(run_id: str, call: str, *, reason: str, wrong: bool) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:mark``; the newest word counts."""
    return _post(f"/v1/runs/{segment(run_id)}:mark", shapes.RunSummary, {"call": call, "reason": reason, "wrong": wrong})


def resolve(
    run_id: str, call: str, *, done: bool, result: object, retry: bool = False, reason: str = ""
) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:resolve``; the same answer again is harmless."""
    said: dict[str, object] = {"call": call, "done": done, "result": result}
    said |= ({"retry": True} if retry else {}) | ({"reason": reason} if reason else {})
    return _post(f"/v1/runs/{segment(run_id)}:resolve", shapes.RunSummary, said)


def signal(run_id: str, name: str, payload: object, key: str) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:signal``; one message under one key."""
    said = {"name": name, "payload": payload}
    return _post(f"/v1/runs/{segment(run_id)}:signal", shapes.RunSummary, said, (("idempotency-key", key),))


def pause(run_id: str, reason: str, key: str) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:pause``; harmless when repeated."""
    return _post(f"/v1/runs/{segment(run_id)}:pause", shapes.RunSummary, {"reason": reason}, (("idempotency-key", key),))


def resume(run_id: str, reason: str, key: str, *, done: bool) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:resume``; harmless when repeated."""
    said = {"reason": reason, "done": done}
    return _post(f"/v1/runs/{segment(run_id)}:resume", shapes.RunSummary, said, (("idempotency-key", key),))


def keys() -> Call[list[shapes.KeyInfo]]:
    """``GET /v1/keys``."""
    return _listed("/v1/keys", shapes.KeyList, lambda page: list(page.keys))


def make_key(subject: str, grants: Sequence[tuple[str, str]], label: str, lifetime_s: int | None) -> Call[shapes.MadeKey]:
    """``POST /v1/keys``. Each time it is another key."""
    given = [{"role": role, "tenant": tenant} for role, tenant in grants]
    return _post("/v1/keys", shapes.MadeKey, {"subject": subject, "grants": given, "label": label, "lifetime_s": lifetime_s})


def revoke_key(prefix: str, reason: str) -> Call[shapes.KeyInfo]:
    """``POST /v1/keys/{prefix}:revoke``; a second time changes nothing."""
    return _post(f"/v1/keys/{segment(prefix)}:revoke", shapes.KeyInfo, {"reason": reason})


def approval(name: str) -> Call[shapes.ApprovalDetail]:
    """``GET /v1/approvals/{approval}``."""
    return _get(f"/v1/approvals/{segment(name)}", shapes.ApprovalDetail)


def decide(
    name: str, *, approve: bool, reason: str, digest: str, instead: Mapping[str, object] | None = None
) -> Call[shapes.Approval]:
    """``POST /v1/approvals/{approval}:decide`` for one digest."""
    if not re.fullmatch(r"[\x21\x23-\x7e]+", digest):
        raise ClientError("client.digest", "a digest is the text that the approval shows, without quotation marks")
    said: dict[str, object] = {"decision": "approve" if approve else "reject", "reason": reason, **(instead or {})}
    path = f"/v1/approvals/{segment(name)}:decide"
    return _post(path, shapes.Approval, said, (("if-match", f'"{digest}"'),))


def runs(cursor: str | None, limit: int, **filters: str | None) -> Call[shapes.RunPage]:
    """One page of ``GET /v1/runs``."""
    return _get("/v1/runs", shapes.RunPage, _query(cursor, limit, filters))


def approvals(cursor: str | None, limit: int, **filters: str | None) -> Call[shapes.ApprovalPage]:
    """One page of ``GET /v1/approvals``."""
    return _get("/v1/approvals", shapes.ApprovalPage, _query(cursor, limit, filters))


def tools() -> Call[list[shapes.Tool]]:
    """``GET /v1/tools``."""
    return _listed("/v1/tools", shapes.ToolList, lambda page: list(page.tools))


def routes(tenant: str | None = None) -> Call[list[shapes.Route]]:
    """``GET /v1/routes``."""
    return _listed(
        "/v1/routes", shapes.RouteList, lambda page: list(page.routes), () if tenant is None else (("tenant", tenant),)
    )


def budgets() -> Call[list[shapes.Account]]:
    """``GET /v1/budgets``."""
    return _listed("/v1/budgets", shapes.AccountList, lambda page: list(page.budgets))


def raise_account(account: str, budget: Budget, model_calls: int | None, reason: str) -> Call[shapes.RaisedAccount]:
    """``POST /v1/budgets/{account}:raise``; the same again changes nothing."""
    limits = budget.fields() | ({} if model_calls is None else {"max_model_calls": model_calls})
    return _post(f"/v1/budgets/{segment(account)}:raise", shapes.RaisedAccount, {"budget": limits, "reason": reason})


def messages(cursor: str | None, limit: int, **filters: str | None) -> Call[shapes.PostPage]:
    """One page of ``GET /v1/outbox``."""
    return _get("/v1/outbox", shapes.PostPage, _query(cursor, limit, filters))


def message(name: str, *, content: bool | None = None) -> Call[shapes.PostDetail]:
    """``GET /v1/outbox/{message}``."""
    query = () if content is None else (("content", _flag(content)),)
    return _get(f"/v1/outbox/{segment(name)}", shapes.PostDetail, query)


def decide_message(name: str, action: str, reason: str) -> Call[shapes.Post]:
    """``POST /v1/outbox/{message}:requeue`` or ``:drop``; the same answer again is harmless."""
    return _post(f"/v1/outbox/{segment(name)}:{action}", shapes.Post, {"reason": reason})


def workers() -> Call[list[shapes.Worker]]:
    """``GET /v1/workers``."""
    return _listed("/v1/workers", shapes.WorkerList, lambda page: list(page.workers))


def dead_letters(cursor: str | None, limit: int, **filters: str | None) -> Call[shapes.RunPage]:
    """``GET /v1/dead-letters``, one page."""
    return _get("/v1/dead-letters", shapes.RunPage, _query(cursor, limit, filters))


def requeue(run_id: str, reason: str) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:requeue``; requeueing again gives the same run."""
    return _post(f"/v1/runs/{segment(run_id)}:requeue", shapes.RunSummary, {"reason": reason})


def drop(run_id: str, reason: str) -> Call[shapes.RunSummary]:
    """``POST /v1/dead-letters/{run_id}:drop``; harmless when repeated."""
    return _post(f"/v1/dead-letters/{segment(run_id)}:drop", shapes.RunSummary, {"reason": reason})


def dependencies() -> Call[list[shapes.Dependency]]:
    """``GET /v1/dependencies``."""
    return _listed("/v1/dependencies", shapes.DependencyList, lambda page: list(page.dependencies))


def change_dependency(
    name: str, change: Mapping[str, object] | None, *, for_s: float, reason: str
) -> Call[list[shapes.Dependency]]:
    """``POST /v1/dependencies``; the same again lasts from now on."""
    said = {"name": name, "change": dict(change or {}), "for_s": for_s, "end": change is None, "reason": reason}
    request = Request(method="POST", path="/v1/dependencies", headers=_WRITES, body=encoded(said))
    return Call(request, lambda answer: list(decoded(answer, shapes.DependencyList).dependencies))


def policies() -> Call[shapes.Policies]:
    """``GET /v1/policies``."""
    return _get("/v1/policies", shapes.Policies)


def switches() -> Call[shapes.Switches]:
    """``GET /v1/switches``."""
    return _get("/v1/switches", shapes.Switches)


def switch(
    name: str,
    *,
    on: bool,
    reason: str,
    tenant: str = "",
    route: str = "",
    expires_in_s: int | None = None,
    expected_version: int | None = None,
    preview: bool = False,
) -> Call[shapes.Switches]:
    """``POST /v1/switches``; the same again changes nothing."""
    said: dict[str, object] = {"name": name, "on": on, "reason": reason}
    bounds: dict[str, object] = {"tenant": tenant, "route": route, "preview": preview}
    timed: dict[str, object] = {"expires_in_s": expires_in_s, "expected_version": expected_version}
    said |= {word: value for word, value in bounds.items() if value} | {w: v for w, v in timed.items() if v is not None}
    return _post("/v1/switches", shapes.Switches, said)


def audit(after: int, limit: int, *, action: str = "", target: str = "") -> Call[shapes.AuditPage]:
    """``GET /v1/audit``."""
    query = [("after", str(after)), ("limit", str(limit)), ("action", action), ("target", target)]
    return _get("/v1/audit", shapes.AuditPage, tuple([pair for pair in query if pair[1]]))


def health() -> Call[shapes.Health]:
    """``GET /health``."""
    return _get("/health", shapes.Health)


def events(run_id: str, after: int, *, live: bool, content: bool | None) -> Request:
    """``GET /v1/runs/{run_id}/events`` after a sequence. The header makes the server say when there is nothing more to come."""
    query: tuple[tuple[str, str], ...] = () if live else (("follow", "false"),)
    if content is not None:
        query = (*query, ("content", _flag(content)))
    headers = (("accept", "text/event-stream, application/problem+json"), ("last-event-id", str(after)))
    return Request(method="GET", path=f"/v1/runs/{segment(run_id)}/events", query=query, headers=headers)


def decoded(answer: Answer, kind: type[T]) -> T:
    """An answer's body; raises :class:`ClientError` (``client.answer``) for what is something else."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = f"the answer is not what this client expects ({error}); is the server of another version?"
        raise ClientError("client.answer", said, status=answer.status) from None


def encoded(body: object) -> bytes:
    """A body as JSON; raises :class:`ClientError` (``client.body``) for what has no JSON form, NaN and lone surrogates among it."""
    try:
        return json.dumps(msgspec.to_builtins(body), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        said = f"what is sent has no JSON form ({str(error)[:200]}); send plain values"
        raise ClientError("client.body", said) from None


def checked_seconds(what: str, seconds: float) -> float:
    """Return a length of time that makes sense; raises :class:`ClientError` (``client.setting``)."""
    if not 0 <= seconds < 1e9:
        raise ClientError("client.setting", f"{what} is a number of seconds from 0")
    return float(seconds)


def _get(path: str, kind: type[T], query: tuple[tuple[str, str], ...] = ()) -> Call[T]:
    return Call(Request(method="GET", path=path, query=query, headers=_ANSWERS), lambda answer: decoded(answer, kind))


def _listed(path: str, kind: type[T], rows: Callable[[T], list[Row]], query: tuple[tuple[str, str], ...] = ()) -> Call[list[Row]]:
    request = Request(method="GET", path=path, query=query, headers=_ANSWERS)
    return Call(request, lambda answer: rows(decoded(answer, kind)))


Row = TypeVar("Row")


def _post(path: str, kind: type[T], body: Mapping[str, object], headers: tuple[tuple[str, str], ...] = ()) -> Call[T]:
    request = Request(method="POST", path=path, headers=(*_WRITES, *headers), body=encoded(body))
    return Call(request, lambda answer: decoded(answer, kind))


def _query(cursor: str | None, limit: int, filters: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    asked = {**filters, "cursor": cursor, "limit": str(limit)}
    return tuple((name, value) for name, value in asked.items() if value is not None)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _milliseconds(value: str | float) -> int:
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise ClientError("client.budget", f"{value!r} is not a duration; write 250ms, 15s, 5m, 24h or 7d")
        return int(Decimal(match[1]) * _MS[match[2]])
    return int(checked_seconds("deadline", value) * 1_000)


def _dollars(value: str | float) -> str:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite() or not 0 <= amount < 10**9:
        raise ClientError("client.budget", f"{value!r} is not an amount of dollars; write for example '0.20'")
    return f"{amount:f}"
