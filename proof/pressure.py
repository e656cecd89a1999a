"""A load through the real owner and the real writer process, whose every byte can be checked afterwards without remembering it.

What the n-th event of a run says follows from the run's name and n, so whatever was acknowledged, by whichever owner, can be compared
with what is in the file. Each step charges a shared account, so that a step that was applied twice shows there as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.core.commit import (
    Applied,
    Charge,
    Claim,
    Claimed,
    ClaimedRun,
    Commit,
    Deliver,
    Head,
    NewRun,
    Op,
    Outcome,
    Record,
    record,
)
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.events import BudgetMoved, Move
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.opening import check, connect
from quarterdeck.store.sqlite.rows import rows
from quarterdeck.testing.storeload import START_US, audit

ANSWER_S = 60.0
"""How long a load may wait for one answer before that is a finding: a hang is to be reported, not to be suffered."""
STEPS = 6
MOVE = Move("all", "tool_calls", 3, 3, 1)


def event(run_id: str, seq: int) -> Record:
    """The event that a run has at ``seq``."""
    if seq > 1 and seq % 2:
        return record(BudgetMoved(START_US + seq, (MOVE,)))
    return Record(b'{"kind":"note","run":"%s","seq":%d}' % (run_id.encode(), seq), b"payload of %d " % seq * (1 + seq * 7 % 40))


@dataclass(slots=True)
class Pressure:
    """Admits ``runs`` runs and drives every run that it can claim to its end; ``told`` hears each acknowledgement."""

    journal: SqliteJournal
    prefix: str
    runs: int
    told: Callable[[str, int], None] = lambda _run, _seq: None
    findings: list[str] = field(default_factory=list)
    answered: int = 0
    _claims: int = 0

    async def go(self) -> list[str]:
        """Until everything is finished or something is wrong; returns the findings."""
        try:
            await asyncio.gather(*(self._admit(f"{self.prefix}-{number}") for number in range(self.runs)))
            await self._drain()
        except TimeoutError:
            self.findings.append(f"an operation was not answered within {ANSWER_S:.0f} s")
        except Unavailable as error:
            self.findings.append(f"the store gave up: {error}")
        return self.findings

    async def _drain(self) -> None:
        active: set[asyncio.Task[None]] = set()
        try:
            while not self.findings:
                self._claims += 1
                claimed = await self._answer(Claim("w", 2, START_US + self._claims, f"{self.prefix}-{self._claims}"))
                if isinstance(claimed, Claimed) and claimed.runs:
                    active |= {asyncio.create_task(self._drive(run)) for run in claimed.runs}
                elif active:
                    done, active = await asyncio.wait(active, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                else:
                    return
        finally:
            for task in active:
                task.cancel()
            await asyncio.gather(*active, return_exceptions=True)

    async def _admit(self, run_id: str) -> None:
        new = NewRun("t", "route", "agent", "alice", START_US, run_id.encode().ljust(16)[:16])
        commit = Commit(run_id, 0, 0, self.journal.incarnation, (event(run_id, 1),), START_US, new=new)
        await self._expect(commit, 1)
        self.told(run_id, 1)

    async def _drive(self, run: ClaimedRun) -> None:
        seq, last = run.seq, 1 + 2 * STEPS
        while seq < last and not self.findings:
            inbox: tuple[int, ...] = ()
            if seq % 3 == 0:
                row = await self._answer(Deliver(run.run_id, "signal", b"s", START_US, f"s{seq}"))
                inbox = (row.number,) if isinstance(row, Applied) else ()
            head = Head("succeeded", "completed", release=True) if seq + 2 == last else None
            records = (event(run.run_id, seq + 1), event(run.run_id, seq + 2))
            commit = Commit(
                run.run_id, seq, run.epoch, self.journal.incarnation, records, START_US + seq,
                head=head, charges=(Charge(MOVE),), inbox=inbox,
            )  # fmt: skip
            await self._expect(commit, seq + 2)
            seq += 2
            self.told(run.run_id, seq)

    async def _expect(self, commit: Commit, number: int) -> None:
        outcome = await self._answer(commit)
        if outcome != Applied(number):
            self.findings.append(f"{commit.run_id} at {commit.seq} was answered with {outcome}, not {number}")

    async def _answer(self, op: Op) -> Outcome:
        async with asyncio.timeout(ANSWER_S):
            outcome = await self.journal.submit(op)
        self.answered += 1
        return outcome


def inspect(path: Path, acknowledged: dict[str, int], *, finished: bool) -> list[str]:
    """Everything wrong with a file after such loads: lost, doubled, changed, unfinished, contradictory."""
    db = connect(path, readonly=True)
    try:
        check(db, path)
        findings = audit(db)
        stored: dict[str, int] = dict(rows(db, "SELECT run_id, seq FROM runs"))
        findings += [
            f"lost: {run_id} had {seq}, the file has {stored.get(run_id)}"
            for run_id, seq in acknowledged.items()
            if stored.get(run_id, 0) < seq
        ]
        events = rows(db, "SELECT r.run_id, e.seq, e.body, e.payload FROM events e JOIN runs r ON r.id = e.run")
        findings += [f"changed: {run_id}#{seq}" for run_id, seq, *row in events if Record(*row) != event(run_id, seq)]
        if finished:
            findings += [f"unfinished: {run_id}" for run_id, seq in stored.items() if seq != 1 + 2 * STEPS]
            findings += [
                f"held by nobody who knows: {row[0]}" for row in rows(db, "SELECT run_id FROM runs WHERE worker IS NOT NULL")
            ]
        return findings
    finally:
        db.close()
