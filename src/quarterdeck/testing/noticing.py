"""Which of the declared situations a simulation has met, read from what the runtime committed."""

from __future__ import annotations

from quarterdeck.core import events as ev
from quarterdeck.core.commit import Commit, InboxRow, Op, Refused
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling
from quarterdeck.testing.reached import Reached
from quarterdeck.testing.watched import Watched


def notice_refusal(reached: Reached, op: Op, refused: Refused) -> None:
    """What a store's refusal shows."""
    if isinstance(op, Commit):
        reached.sometimes("rejudged.control", refused.guard == "control")
        reached.sometimes("rejudged.facts", refused.guard == "facts" and op.new is None)
        reached.sometimes("stale.refused", refused.guard == "epoch")
        reached.sometimes("budget.shared", refused.guard == "account")
        reached.sometimes("admission.repeated", refused.guard == "key")
    reached.sometimes("approval.self_refused", refused.guard == "self")


def notice_decision(reached: Reached, watched: Watched, event: ev.GateDecided) -> None:
    """What a decision of the gate shows."""
    code = event.reasons[0] if event.reasons else ""
    sometimes = reached.sometimes
    if event.ruling is Ruling.DENY:
        sometimes("calls.garbage", code.startswith("json."))
        sometimes("calls.schema", code == "schema.invalid")
        sometimes("calls.unknown_tool", code == "tool.unknown")
        sometimes("calls.repetition", code == "loop.repetition")
        sometimes("switch.denied", code.startswith("switch."))
        sometimes("budget.run", code in ("budget.tokens", "budget.cost", "budget.turns", "budget.tools"))
        sometimes("breaker.open", code == "breaker.open")
        sometimes("approval.digest_differs", code == "approval.digest_differs")
    sometimes("model.degraded", event.ruling is Ruling.DEGRADE)
    watched.ruled[event.call] = event.ruling
    turn = event.call.partition(".")[0]
    rulings = {ruling for call, ruling in watched.ruled.items() if call.partition(".")[0] == turn}
    sometimes("calls.partly_denied", event.proposal is ProposalKind.TOOL and {Ruling.ALLOW, Ruling.DENY} <= rulings)


def notice_receipt(reached: Reached, event: ev.ModelClosed | ev.ToolClosed) -> None:
    """What a receipt shows."""
    revoked = event.code.startswith("switch.") or event.code == "run.cancelled"
    reached.sometimes("switch.stopped_retry", revoked)
    reached.sometimes("effect.perform_by", event.code == "effect.perform_by")
    reached.sometimes("effect.unknown", event.status is ReceiptStatus.UNKNOWN)


def is_late(row: InboxRow) -> bool:
    """Whether an inbox row is a receipt of a former owner."""
    return row.kind == "receipt" and b'"by":"person"' not in row.body
