"""What people do, from another process than the worker's: decide what waits for them, and say how a doubtful effect ended.

It is what ``quarterdeck approvals approve``, ``reject`` and ``quarterdeck effects resolve`` do. Nothing here appends to a journal: an
answer is a row in the run's inbox, which the worker folds in.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from examples.support.telling import call
from examples.support.watching import clock
from quarterdeck.app.runtime import refusal
from quarterdeck.core.commit import DecideApproval, Deliver, Op, Refused
from quarterdeck.ports.store import ApprovalRow
from quarterdeck.store.sqlite.visitor import visit


def decide(store: Path, row: ApprovalRow, *, approve: bool, by: str, reason: str = "") -> None:
    """Answer one approval, for exactly the action that ``row`` shows. Raises ``Refused`` with the code of whatever forbids it."""
    _apply(store, DecideApproval(row.approval, row.digest, "approved" if approve else "rejected", by, reason, clock.now_us()))


def resolve(store: Path, run_id: str, step: str, *, done: bool, by: str) -> None:
    """Say whether an effect that is unknown has happened."""
    status = "succeeded" if done else "failed"
    body = msgspec.json.encode({"call": step, "status": status, "by": by, "result": f"{by} has looked: {status}"})
    _apply(store, Deliver(run_id, "receipt", body, clock.now_us(), f"resolve:{step}"))


def shown(row: ApprovalRow) -> str:
    """The action that somebody is asked about, as stored: tool, arguments, and why it asks."""
    action = msgspec.json.decode(row.shown, type=dict[str, object])
    arguments = msgspec.json.encode(action["arguments"]).decode()
    return f"{call(row.tool, arguments)}   {', '.join(msgspec.convert(action['reasons'], list[str]))}"


def _apply(store: Path, op: Op) -> None:
    outcome = visit(store, op)
    if isinstance(outcome, Refused):
        raise refusal(outcome)
