"""What people do, from another process than the worker's: decide what waits for them, and say how a doubtful effect ended.

It is what ``quarterdeck approvals approve``, ``reject`` and ``quarterdeck effects resolve`` do. Nothing here appends to a journal: an
answer is a row in the run's inbox, which the worker folds in.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from examples.support.telling import call
from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import Orders
from quarterdeck.cli.orders import visiting
from quarterdeck.cli.storefile import reading
from quarterdeck.ports.store import ApprovalRow


async def decide(store: Path, row: ApprovalRow, *, approve: bool, by: str, reason: str = "") -> None:
    """Answer one approval, for exactly the action that ``row`` shows. Raises ``Refused`` with the code of whatever forbids it."""
    with reading(store) as insights:
        orders = Orders(visiting(store), insights, SystemClock())
        await orders.decide(row.approval, approve=approve, by=by, reason=reason, digest=row.digest)


async def resolve(store: Path, run_id: str, step: str, *, done: bool, by: str) -> None:
    """Say whether an effect that is unknown has happened."""
    with reading(store) as insights:
        await Orders(visiting(store), insights, SystemClock()).resolve(run_id, step, done=done, by=by, result=f"{by} has looked")


def shown(row: ApprovalRow) -> str:
    """The action that somebody is asked about, as stored: tool, arguments, and why it asks."""
    action = msgspec.json.decode(row.shown, type=dict[str, object])
    arguments = msgspec.json.encode(action["arguments"]).decode()
    return f"{call(row.tool, arguments)}   {', '.join(msgspec.convert(action['reasons'], list[str]))}"
