"""What a store and a deck hold, in the shapes that servers answer with.

A test asks a server and its store the same questions and compares the answers, so that the two cannot grow apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quarterdeck.app import shown
from quarterdeck.app.clock import SystemClock
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.switching import Switched
from quarterdeck.app.views import EventView, RunView, event_views
from quarterdeck.app.views import RunResult as StoredResult
from quarterdeck.app.workers import WorkerView
from quarterdeck.client.shapes import (
    Account,
    Approval,
    ApprovalDetail,
    AuditRow,
    Event,
    KeyInfo,
    MadeKey,
    Post,
    PostDetail,
    Route,
    RunDetail,
    RunResult,
    RunSummary,
    SwitchDetail,
    Switches,
    SwitchProof,
    Tool,
    Worker,
)
from quarterdeck.core.audit import Audit
from quarterdeck.core.controls import Switch
from quarterdeck.core.specs import RouteSpec, ToolSpec
from quarterdeck.ports.store import AccountRow, ApprovalRow, PostRow, RunRow, StoredEvent
from quarterdeck.server.identity.keys import KeyInfo as KeyInfoOfStore
from quarterdeck.server.identity.keys import NewKey


def summary(row: RunRow) -> RunSummary:
    """One run as lists show it."""
    return msgspec.convert(shown.run(row), RunSummary)


def detail(view: RunView, *, content: bool) -> RunDetail:
    """One run in full; its reply only once it has ended, and with ``content``."""
    return msgspec.convert(shown.run_in_full(view, content=content), RunDetail)


def post(row: PostRow) -> Post:
    """One message of the outbox without its contents."""
    return msgspec.convert(shown.post(row), Post)


def post_detail(row: PostRow, *, content: bool) -> PostDetail:
    """One message, with its contents where they are wanted."""
    return msgspec.convert(shown.post_in_full(row, content=content), PostDetail)


def result(found: StoredResult) -> RunResult:
    """How a run stands."""
    return msgspec.convert(msgspec.structs.asdict(found), RunResult)


def events(stored: Sequence[StoredEvent], *, content: bool) -> list[Event]:
    """Events of a journal."""
    return [event(view) for view in event_views(stored, content=content)]


def event(view: EventView) -> Event:
    """One event."""
    return Event(view.seq, view.kind, view.at_us, view.body, view.content)


def approval(row: ApprovalRow) -> Approval:
    """One approval without its contents."""
    return msgspec.convert(shown.approval(row), Approval)


def approval_detail(row: ApprovalRow) -> ApprovalDetail:
    """One approval with what would be executed, unless that was erased."""
    return msgspec.convert(shown.approval_in_full(row, content=True), ApprovalDetail)


def account(row: AccountRow) -> Account:
    """One shared account in one dimension."""
    return msgspec.convert(shown.account(row, SystemClock().now_us()), Account)


def key(info: KeyInfoOfStore) -> KeyInfo:
    """One API key, without its text."""
    return msgspec.convert(msgspec.to_builtins(info), KeyInfo)


def made_key(made: NewKey) -> MadeKey:
    """An API key that was just made."""
    return msgspec.convert({**msgspec.to_builtins(made.info), "key": made.text}, MadeKey)


def worker(view: WorkerView) -> Worker:
    """One runtime that may hold runs."""
    return msgspec.convert(msgspec.structs.asdict(view), Worker)


def tool(spec: ToolSpec) -> Tool:
    """One tool's manifest."""
    return msgspec.convert(shown.tool(spec), Tool)


def route(deck: Quarterdeck, spec: RouteSpec, tenant: str | None) -> Route:
    """One row of the route table, as it is in effect for a tenant."""
    return msgspec.convert(shown.route(spec, deck.agents, deck.terms, tenant), Route)


def switches(version: int, found: Sequence[Switch], now_us: int) -> Switches:
    """The switches as servers show them."""
    details = [
        SwitchDetail(
            key=one.key, expired=one.expires_at_us is not None and now_us >= one.expires_at_us, **msgspec.structs.asdict(one)
        )
        for one in found
    ]
    return Switches(version=version, switches=tuple([one.key for one in details if not one.expired]), details=tuple(details))


def switch_proof(done: Switched) -> SwitchProof:
    """The proof of a change."""
    said = {name: value for name, value in msgspec.structs.asdict(done).items() if name != "reach"}
    return SwitchProof(**said, **msgspec.structs.asdict(done.reach))


def audit_row(seq: int, said: Audit) -> AuditRow:
    """One action of an operator."""
    detail = msgspec.json.decode(said.detail) if said.detail else None
    return AuditRow(seq=seq, **{**msgspec.structs.asdict(said), "detail": detail})
