"""Removing what is left of runs that ended long ago, a bounded piece at a time."""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from quarterdeck.core.commit import Purge, Purged
from quarterdeck.store.sqlite.rows import one, rows

PARTS = ("events", "inbox", "approvals", "posts", "key", "exclusive", "letter", "contract", "run")
"""What a run leaves, in the order in which it is removed."""


def purge(db: apsw.Connection, sql: Mapping[str, str], op: Purge) -> Purged:
    """Remove the runs of one piece of a route that have ended before the retention time. One with an undelivered message stays.

    The time is the earlier of what the caller says and what this machine says: a wrong clock removes nothing too early.
    """
    before_us = min(op.now_us, one(db, sql["clock"])[0]) - op.retain_us
    removed = after = 0
    for run, is_over, is_old in rows(db, sql["old_runs"], (op.route, op.after, before_us, op.limit)):
        if not is_old:
            return Purged(removed, 0)
        after = run
        if is_over and not one(db, sql["open_posts"], (run,))[0]:
            for part in PARTS:
                db.execute(sql[f"purge_{part}"], (run,))
            removed += 1
    return Purged(removed, after)
