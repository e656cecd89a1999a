"""What a store and a deck hold, in the shapes that servers answer with.

A test asks a server and its store the same questions and compares the answers, so that the two cannot grow apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quarterdeck.app.budgets import overlaid
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.views import EventView, RunView, event_views
from quarterdeck.app.views import RunResult as StoredResult
from quarterdeck.client.shapes import Account, Approval, ApprovalDetail, Event, Route, RunDetail, RunResult, RunSummary, Tool
from quarterdeck.core.specs import RouteSpec, ToolSpec
from quarterdeck.ports.store import AccountRow, ApprovalRow, RunRow, StoredEvent


def summary(row: RunRow) -> RunSummary:
    """One run as lists show it."""
    return msgspec.convert({**msgspec.structs.asdict(row), "user": row.actor}, RunSummary)


def detail(view: RunView, *, content: bool) -> RunDetail:
    """One run in full; its reply only once it has ended, and with ``content``."""
    contract, result = view.contract, view.result
    return msgspec.convert(
        {
            **msgspec.structs.asdict(summary(view.row)),
            **{name: contract[name] for name in ("mode", "autonomy", "risk", "limits")},
            "versions": contract["version_set"],
            "deadline_at_us": contract.get("deadline_at_us"),
            "turn": view.turn,
            "effects": result.effects,
            "spent": result.spent,
            "open_effects": view.open_effects,
            "unknown_effects": view.unknown_effects,
            "approvals": view.approvals,
            "result": {"text": result.text, "partial": result.partial} if content and result.done else None,
        },
        RunDetail,
    )


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
    return msgspec.convert(msgspec.structs.asdict(row), Approval)


def approval_detail(row: ApprovalRow) -> ApprovalDetail:
    """One approval with what would be executed, unless that was erased."""
    text = row.shown.decode() if row.shown else None
    shown = None if text is None else msgspec.json.decode(text)
    return ApprovalDetail(**msgspec.structs.asdict(approval(row)), shown=shown, shown_text=text)


def account(row: AccountRow) -> Account:
    """One shared account in one dimension."""
    return msgspec.convert(msgspec.structs.asdict(row), Account)


def tool(spec: ToolSpec) -> Tool:
    """One tool's manifest."""
    built = {name: value for name, value in msgspec.structs.asdict(spec).items() if name != "input_schema"}
    schema = msgspec.json.decode(spec.input_schema)
    return msgspec.convert({**built, "input_schema": schema, "schema_hash": spec.schema_hash}, Tool)


def route(deck: Quarterdeck, spec: RouteSpec) -> Route:
    """One row of the route table, with what its agent says where it is silent."""
    agent = deck.agents[spec.agent]
    return msgspec.convert(
        {
            **msgspec.to_builtins(spec),
            "model": agent.model,
            "risk": spec.risk or agent.risk,
            "autonomy": spec.autonomy or agent.autonomy,
            "tools": [name for name in agent.tools if spec.tools is None or name in spec.tools],
            "limits": msgspec.to_builtins(overlaid(agent.limits, spec.limits)),
        },
        Route,
    )
