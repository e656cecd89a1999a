"""Notices: what a person should hear of while a run waits for one, as data made of events; how they are carried is somebody else's.

They are made of what is about to be durable, at one place (the sequencer), so that whatever carries them can do it in the same commit.
"""

from __future__ import annotations

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.state import RunState


class Notice(msgspec.Struct, frozen=True):
    """Something that ``owner`` should see to: an approval ``waits``, was ``escalated`` to the next owner, or has ``expired``."""

    kind: str
    run_id: str
    tenant: str
    route: str
    approval: str
    tool: str
    owner: str
    at_us: int
    expires_at_us: int


def notice_of(event: ev.Event, state: RunState) -> Notice | None:
    """The notice that an event of this run is, if somebody should hear of it."""
    kind, approval, owner = "", "", ""
    mark = None
    match event:
        case ev.ApprovalRequested():
            kind, approval, owner = "approval.waits", event.approval, event.owner
        case ev.ApprovalEscalated():
            kind, approval, owner = "approval.escalated", event.approval, event.owner
            mark = state.approvals.get(approval)
        case ev.ApprovalDecided() if event.outcome == "expired":
            kind, approval = "approval.expired", event.approval
            mark = state.approvals.get(approval)
            owner = mark.owner if mark is not None else ""
        case _:
            return None
    contract = state.contract
    call = event.call if isinstance(event, ev.ApprovalRequested) else mark.call if mark is not None else ""
    tool = state.calls[call].tool if call in state.calls else ""
    expires_at_us = (
        event.expires_at_us if isinstance(event, ev.ApprovalRequested) else mark.expires_at_us if mark is not None else 0
    )
    return Notice(kind, contract.run_id, contract.tenant, contract.route, approval, tool, owner, event.at_us, expires_at_us)
