"""What another process may do while the owner runs: put rows into inboxes, decide approvals, set facts, ask for runs.

A visitor applies the same operations by the same code, in one short transaction each, but never appends to an existing journal and
never claims. The owner notices the change of the file and goes on from there.
"""

from __future__ import annotations

from pathlib import Path

from quarterdeck.core.commit import Claim, Commit, Op, Outcome
from quarterdeck.core.errors import UsageError
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.opening import connect, readable, require_durable, require_ours, require_present


def visit(path: Path, op: Op) -> Outcome:
    """Apply one operation to a file that another process owns, or nobody does. Blocks until it is durable."""
    if isinstance(op, Claim) or (isinstance(op, Commit) and op.new is None):
        raise UsageError("store.visitor", "only the owner of a store appends to journals; go through the running service")
    require_ours(path)
    db = connect(path)
    try:
        with readable(path):
            require_durable(db)
            require_present(db, path)
            return Applier(db).apply([op])[0]
    finally:
        db.close()
