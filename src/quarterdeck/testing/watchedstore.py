"""The rows of a simulation's store, under the eyes of its oracle."""

from __future__ import annotations

from quarterdeck.core.commit import Applied, Commit, Op, Outcome
from quarterdeck.testing.memory import MemoryStore, Shared
from quarterdeck.testing.oracle import Oracle
from quarterdeck.testing.tables import Tables


class WatchedStore(Shared):
    """Rows that tell the oracle of every change."""

    def __init__(self, tables: Tables, oracle: Oracle) -> None:
        super().__init__(tables)
        self._oracle = oracle

    def apply(self, op: Op) -> Outcome:
        """Apply one operation under the oracle's eyes."""
        found = self._oracle.before(op)
        journal = self.tables.runs.get(op.run_id) if isinstance(op, Commit) else None
        seq = journal.seq if journal is not None else 0
        outcome = super().apply(op)
        if isinstance(op, Commit) and isinstance(outcome, Applied) and self.tables.runs[op.run_id].seq > seq:
            self._oracle.ledger(op)
        self._oracle.after(op, found, outcome)
        return outcome

    def enter(self, owner: MemoryStore) -> None:
        """An owner opens the rows, and adopts what dead ones held."""
        super().enter(owner)
        for worker in sorted({watched.holder for watched in self._oracle.runs.values() if watched.holder is not None}):
            if owner.quiesced or worker not in self.live:
                self._oracle.released(worker)

    def bury(self, worker: str) -> None:
        """A worker is declared dead."""
        super().bury(worker)
        self._oracle.released(worker)
