"""Each verb as data: the request that it sends, and how its answer is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
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
    priority: str | None = None
    mode: str | None = None
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
        "priority": order.priority,
        "mode": order.mode,
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


def cancel(run_id: str, reason: str) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:cancel``; harmless when repeated."""
    return _post(f"/v1/runs/{segment(run_id)}:cancel", shapes.RunSummary, {"reason": reason})


def resolve(run_id: str, call: str, *, done: bool, result: object) -> Call[shapes.RunSummary]:
    """``POST /v1/runs/{run_id}:resolve``; the same answer again is harmless."""
    said = {"call": call, "done": done, "result": result}
    return _post(f"/v1/runs/{segment(run_id)}:resolve", shapes.RunSummary, said)


def approval(name: str) -> Call[shapes.ApprovalDetail]:
    """``GET /v1/approvals/{approval}``."""
    return _get(f"/v1/approvals/{segment(name)}", shapes.ApprovalDetail)


def decide(name: str, *, approve: bool, reason: str, digest: str) -> Call[shapes.Approval]:
    """``POST /v1/approvals/{approval}:decide`` for one digest."""
    if not re.fullmatch(r"[\x21\x23-\x7e]+", digest):
        raise ClientError("client.digest", "a digest is the text that the approval shows, without quotation marks")
    said = {"decision": "approve" if approve else "reject", "reason": reason}
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


def routes() -> Call[list[shapes.Route]]:
    """``GET /v1/routes``."""
    return _listed("/v1/routes", shapes.RouteList, lambda page: list(page.routes))


def budgets() -> Call[list[shapes.Account]]:
    """``GET /v1/budgets``."""
    return _listed("/v1/budgets", shapes.AccountList, lambda page: list(page.budgets))


def dependencies() -> Call[list[shapes.Dependency]]:
    """``GET /v1/dependencies``."""
    return _listed("/v1/dependencies", shapes.DependencyList, lambda page: list(page.dependencies))


def policies() -> Call[shapes.Policies]:
    """``GET /v1/policies``."""
    return _get("/v1/policies", shapes.Policies)


def switches() -> Call[shapes.Switches]:
    """``GET /v1/switches``."""
    return _get("/v1/switches", shapes.Switches)


def switch(name: str, *, on: bool, reason: str) -> Call[shapes.Switches]:
    """``POST /v1/switches``; the same again changes nothing."""
    return _post("/v1/switches", shapes.Switches, {"name": name, "on": on, "reason": reason})


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


def _listed(path: str, kind: type[T], rows: Callable[[T], list[Row]]) -> Call[list[Row]]:
    request = Request(method="GET", path=path, headers=_ANSWERS)
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
