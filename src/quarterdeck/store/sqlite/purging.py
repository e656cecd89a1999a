"""Removing what is left of runs that ended long ago, a bounded piece at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import apsw

from quarterdeck.core.audit import Audit, removal
from quarterdeck.core.budget import spent_by
from quarterdeck.core.commit import Purge, Purged
from quarterdeck.store.sqlite.rows import one, rows

PARTS = ("events", "inbox", "approvals", "posts", "key", "exclusive", "letter", "contract", "run")
"""What a run leaves, in the order in which it is removed."""


def purge(db: apsw.Connection, sql: Mapping[str, str], op: Purge) -> tuple[Purged, Audit | None]:
    """Remove the runs of one piece of a route that have ended before the retention time; and what the audit log is to tell of it.

    One with an undelivered message stays. The time is the earlier of what the caller says and what this machine says: a wrong clock removes
    nothing too early.
    """
    now_us = min(op.now_us, one(db, sql["clock"])[0])
    removed = after = 0
    spent: Counter[tuple[str, str]] = Counter()
    for run, is_over, is_old in rows(db, sql["old_runs"], (op.route, op.after, now_us - op.retain_us, op.limit)):
        if not is_old:
            after = 0
            break
        after = run
        if is_over and not one(db, sql["open_posts"], (run,))[0]:
            spent.update(spent_by([body for (body,) in rows(db, sql["moves_of"], (run,))]))
            for part in PARTS:
                db.execute(sql[f"purge_{part}"], (run,))
            removed += 1
    return Purged(removed, after), removal(op.route, removed, spent, now_us) if removed else None
