"""What a visitor asks of a store, as operations, and what the store's answers mean to whoever asked.

Orders have the same form as those of :class:`~quarterdeck.app.runtime.Runtime`, so that the same order through both is one order.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.runtime import answered, refusal
from quarterdeck.app.views import read_all, state_of
from quarterdeck.cli.storefile import ask_store, reading
from quarterdeck.core.canonical import Json
from quarterdeck.core.commit import DecideApproval, Deliver, Erase, Refused
from quarterdeck.core.contract import checked_key
from quarterdeck.core.errors import Refused as RefusedError
from quarterdeck.core.errors import UsageError
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.store import ApprovalRow, Insights, RunRow
from quarterdeck.store.sqlite.opening import owner_of


class Ordered(msgspec.Struct, frozen=True):
    """An order that is durable, and the status of its run then. ``owner`` is the process that acts on it; without one the order
    waits for the next runtime."""

    run_id: str
    done: str
    owner: int | None
    status: str


def row_of(insights: Insights, run_id: str) -> RunRow:
    """One run; raises :class:`UsageError` (``run.unknown``)."""
    row = insights.run(run_id)
    if row is None:
        raise UsageError("run.unknown", f"no run is called {run_id!r}; `quarterdeck runs ls` lists them")
    return row


def approval_of(insights: Insights, approval: str) -> ApprovalRow:
    """One approval; raises :class:`UsageError` (``approval.unknown``)."""
    row = insights.approval(approval)
    if row is None:
        raise UsageError("approval.unknown", f"no approval is called {approval!r}; `quarterdeck approvals ls` lists them")
    return row


def cancel(path: Path, run_id: str, *, by: str, reason: str) -> Ordered:
    """Stop a run: when this returns, no further intent of it commits. Repeating it, or a run that has ended, is harmless."""
    body = msgspec.json.encode({"by": checked_key("by", by), "reason": reason})
    answered(ask_store(path, Deliver(run_id, "cancel", body, SystemClock().now_us(), "cancel")))
    return _ordered(path, run_id, "cancel")


def decide(path: Path, approval: str, *, approve: bool, by: str, reason: str, digest: str | None) -> Ordered:
    """Answer one approval for the digest that was seen, by default the stored one. The store refuses whoever asked for it."""
    checked_key("by", by)
    with reading(path) as insights:
        row = approval_of(insights, approval)
    outcome = "approved" if approve else "rejected"
    now_us = SystemClock().now_us()
    found = ask_store(path, DecideApproval(approval, digest or row.digest, outcome, by, reason, now_us))  # type: ignore[arg-type]
    if isinstance(found, Refused):
        if found.guard == "terminal":
            raise RefusedError("approval.withdrawn", f"run {row.run_id} has ended ({found.detail}); nothing is left to approve")
        raise refusal(found)
    return _ordered(path, row.run_id, outcome)


def resolve(path: Path, run_id: str, call: str, *, done: bool, by: str, result: Json) -> Ordered:
    """Say how an unknown effect ended. Raises :class:`UsageError` where the effect is not unknown, or was resolved before."""
    checked_key("by", by)
    with reading(path) as insights:
        row = row_of(insights, run_id)
        unknown = state_of(read_all(insights, run_id)).unknown
        _, unread = insights.inbox(run_id)
    if row.status in TERMINAL:
        raise UsageError("run.ended", f"run {run_id} has ended ({row.status}); its record is final")
    if call not in unknown:
        there_are = ", ".join(sorted(unknown)) or "none"
        raise UsageError("effect.not_unknown", f"{call!r} is no unknown effect of run {run_id}; there are: {there_are}")
    token = f"resolve:{call}"
    if any(item.kind == "receipt" and msgspec.json.decode(item.body)["call"] == call for item in unread):
        raise RefusedError("effect.resolved", f"{call} of run {run_id} was resolved before; the run takes it up when it goes on")
    status = "succeeded" if done else "failed"
    body = msgspec.json.encode({"call": call, "status": status, "by": by, "result": result})
    outcome = ask_store(path, Deliver(run_id, "receipt", body, SystemClock().now_us(), token))
    if isinstance(outcome, Refused):
        raise refusal(outcome)
    return _ordered(path, run_id, status)


def erase(path: Path, run_id: str) -> Ordered:
    """Destroy the contents of a run that has ended, for good. Raises :class:`RefusedError` while it has not."""
    outcome = ask_store(path, Erase(run_id, SystemClock().now_us()))
    if isinstance(outcome, Refused):
        if outcome.guard == "terminal":
            raise RefusedError(
                "erase.not_ended", f"run {run_id} has not ended ({outcome.detail}); `quarterdeck runs cancel` it first"
            )
        raise refusal(outcome)
    return _ordered(path, run_id, "erased")


def _ordered(path: Path, run_id: str, done: str) -> Ordered:
    with reading(path) as insights:
        return Ordered(run_id, done, owner_of(path), row_of(insights, run_id).status)
