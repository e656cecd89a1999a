"""Bugs on purpose in how stores tell what operators did; see :mod:`quarterdeck.testing.mutants`."""

from __future__ import annotations

from quarterdeck.core.audit import Audit, appended, entry
from quarterdeck.core.commit import Commit, Op, Outcome, SetFact, audit_of
from quarterdeck.store.postgres import batch
from quarterdeck.store.sqlite import applier
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.testing import tables
from quarterdeck.testing.mutants import Mutant, _rewritten
from quarterdeck.testing.mutants_postgres import rewritten
from quarterdeck.testing.patching import Plant, patched, varied
from quarterdeck.testing.tables import Tables

_applied = Applier._operation
_one = Tables._one


def _applier_always(self: Applier, op: Op) -> Outcome:
    if not isinstance(op, SetFact) and (said := audit_of(op)) is not None:
        self._record(said)
    return _applied(self, op)


def _tables_always(self: Tables, op: Op) -> Outcome:
    if (said := audit_of(op)) is not None:
        self._record(said)
    return _one(self, op)


def _again(self: Tables, said: Audit) -> None:
    self.audit.append(appended(self.audit, entry(said)))


def _blind(self: Tables, op: SetFact) -> Outcome:
    return _set_fact(self, varied(op, expected=None))


_set_fact = Tables._set_fact
_sqlite_set = Applier._set_fact


def _bug(name: str, store: str, invariant: str, caught_by: str, planted: Plant) -> Mutant:
    return Mutant(name, store, 3, (invariant,), caught_by, planted)


_TELLS, _REFUSED, _ONCE = "an_action_is_told_with_what_it_does", "what_was_refused_is_not_told", "an_action_is_told_once"
_SEEN = "a_fact_is_changed_from_the_version_that_was_seen"

_COMMIT = "a_commit_is_told_with_itself"


def _but_commits(op: Op) -> Audit | None:
    return None if isinstance(op, Commit) else audit_of(op)


MUTANTS: tuple[Mutant, ...] = (
    _bug("commits not told", "sqlite", "I7", _COMMIT, lambda: patched(applier, "audit_of", _but_commits)),
    _bug("commits not told", "memory", "I7", _COMMIT, lambda: patched(tables, "audit_of", _but_commits)),
    _bug("commits not told", "postgres", "I7", _COMMIT, lambda: patched(batch, "audit_of", _but_commits)),
    _bug("nothing told", "sqlite", "I7", _TELLS, lambda: patched(Applier, "_record", lambda *_: None)),
    _bug("refused told", "sqlite", "I7", _REFUSED, lambda: patched(Applier, "_operation", _applier_always)),
    _bug(
        "told twice",
        "sqlite",
        "I7",
        _ONCE,
        _rewritten(
            ("find_audit", "digest = ?", "digest = ? AND 0"),
            ("insert_audit", "VALUES (?, ?, ?, ?)", "VALUES (?1, ?2, randomblob(32), ?4)"),
        ),
    ),
    _bug("rows not chained", "sqlite", "I7", _TELLS, lambda: patched(applier, "linked", lambda previous, seq, body: bytes(32))),
    _bug(
        "version seen not compared",
        "sqlite",
        "I9",
        _SEEN,
        lambda: patched(Applier, "_set_fact", lambda self, op: _sqlite_set(self, varied(op, expected=None))),
    ),
    _bug("nothing told", "memory", "I7", _TELLS, lambda: patched(Tables, "_record", lambda *_: None)),
    _bug("refused told", "memory", "I7", _REFUSED, lambda: patched(Tables, "_one", _tables_always)),
    _bug("told twice", "memory", "I7", _ONCE, lambda: patched(Tables, "_record", _again)),
    _bug("version seen not compared", "memory", "I9", _SEEN, lambda: patched(Tables, "_set_fact", _blind)),
    _bug("refused told", "postgres", "I7", _REFUSED, rewritten(("apply_audited", " AND answers -> (i - 1) ->> 0 = 'ok'", ""))),
    _bug(
        "told twice",
        "postgres",
        "I7",
        _ONCE,
        rewritten(
            ("add_audit", "WHERE digest = sha256(record)", "WHERE false"),
            ("add_audit", "sha256(record),\n", "sha256(record || int8send(next)),\n"),
        ),
    ),
    _bug("rows not chained", "postgres", "I7", _TELLS, rewritten(("add_audit", "coalesce(last.hash, ", "coalesce(NULL, "))),
    _bug("version seen not compared", "postgres", "I9", _SEEN, rewritten(("set_fact", "wanted IS NOT NULL AND", "false AND"))),
)
"""Every planted bug, of all three stores."""
