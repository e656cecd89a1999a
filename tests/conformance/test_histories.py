"""Random histories of many owners, against a model that is too simple to be wrong: I3, I7, I11 and I12 after every step."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from quarterdeck.core.commit import (
    Applied,
    Charge,
    Claim,
    Claimed,
    Commit,
    Deliver,
    Head,
    Op,
    Outcome,
    Record,
    Refused,
    SetFact,
)
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.events import Move
from quarterdeck.ports.store import Insights
from quarterdeck.store.chain import verify_run
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.opening import connect, prepare
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.mutants import MUTANTS, Mutant
from quarterdeck.testing.samples import T0_US, admission

LIMIT = 50
ACCOUNT = ("tenant:acme", "tokens")
WORKERS = st.sampled_from(["w1", "w2"])
PICK = st.integers(0, 10**6)


class Subject(Protocol):
    """A store, driven without an event loop."""

    insights: Insights

    def apply(self, batch: Sequence[Op]) -> list[Outcome]: ...

    def replace_owner(self) -> None: ...

    def close(self) -> None: ...


class Memory:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.insights: Insights = self.store

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        return self.store.tables.apply(batch)

    def replace_owner(self) -> None:
        self.store.crash()
        self.store = self.store.connect("next")
        self.insights = self.store

    def close(self) -> None:
        self.store.crash()


class File:
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self._open()

    def _open(self) -> None:
        prepare(self.path, 1)
        self.connection = connect(self.path)
        self.applier = Applier(self.connection)
        self.reads = SqliteInsights(self.path)
        self.insights: Insights = self.reads

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        return self.applier.apply(batch)

    def replace_owner(self) -> None:
        self._shut()
        self._open()

    def _shut(self) -> None:
        self.reads.close()
        self.connection.close()

    def close(self) -> None:
        self._shut()
        self.folder.cleanup()


@dataclass
class Run:
    """What the model knows of one run. ``wakes`` says whether a claim may give it out; ``handles`` are epochs ever held."""

    run_id: str
    bodies: list[bytes]
    epoch: int = 0
    control: int = 0
    worker: str | None = None
    status: str = "queued"
    ready: bool = True
    wake_at_us: int | None = None
    leased: int = 0
    spent: int = 0
    unread: list[int] = field(default_factory=list)


class Histories(RuleBasedStateMachine):
    """Subclasses name the store."""

    subject: Subject

    def open(self) -> Subject:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.subject = self.open()
        self.runs: list[Run] = []
        self.facts = 0
        self.now_us = T0_US
        self.texts = 0
        self.applied: list[tuple[Commit, int]] = []
        for _ in range(3):
            self.admit(False)
        self.claim("w1", 2, 0)

    def teardown(self) -> None:
        if hasattr(self, "subject"):
            self.subject.close()

    def do(self, op: Op, *, among_poison: bool = False) -> Outcome:
        """Apply one operation, perhaps between two that can never be applied."""
        if not among_poison:
            return self.subject.apply([op])[0]
        poison = SetFact("poison", "\udc80", self.now_us)
        before, outcome, after = self.subject.apply([poison, op, poison])
        assert isinstance(before, Refused)
        assert isinstance(after, Refused)
        assert before.guard == after.guard == "poison"
        return outcome

    def some(self, pick: int, *, held: bool) -> Run | None:
        found = [run for run in self.runs if (run.worker is not None) == held and run.status != "failed"]
        return found[pick % len(found)] if found else None

    def commit(self, run: Run, *, charge: Charge | None = None, head: Head | None = None, size: int = 1) -> Commit:
        self.texts += 1
        records = tuple(Record(b'{"text":"%d.%d"}' % (self.texts, n), b"p" if n else None) for n in range(size))
        return Commit(
            run.run_id,
            len(run.bodies),
            run.epoch,
            1,
            records,
            self.now_us,
            control=run.control,
            facts={"switches": self.facts},
            head=head,
            charges=(charge,) if charge is not None else (),
        )

    def landed(self, run: Run, commit: Commit, outcome: Outcome) -> None:
        assert outcome == Applied(len(run.bodies) + len(commit.records))
        run.bodies += [item.body for item in commit.records]
        self.applied.append((commit, outcome.number))

    @rule(poisoned=st.booleans())
    def admit(self, poisoned: bool) -> None:
        if len(self.runs) < 6:
            name = f"r{len(self.runs)}"
            commit = admission(name, at_us=self.now_us)
            assert self.do(commit, among_poison=poisoned) == Applied(1)
            self.runs.append(Run(name, [commit.records[0].body]))
            self.applied.append((commit, 1))

    @rule(worker=WORKERS, limit=st.integers(1, 3), passed=st.sampled_from([0, 1, 5, 6, 7, 20]))
    def claim(self, worker: str, limit: int, passed: int) -> None:
        self.now_us += passed
        outcome = self.do(Claim(worker, limit, self.now_us))
        assert isinstance(outcome, Claimed)
        due = [run for run in self.runs if run.worker is None and self.is_due(run)]
        assert len(outcome.runs) == min(limit, len(due))
        for run in due:
            if run.wake_at_us is not None and run.wake_at_us <= self.now_us:
                run.ready, run.wake_at_us = True, None
        for claimed in outcome.runs:
            run = next(run for run in self.runs if run.run_id == claimed.run_id)
            assert run in due
            assert (claimed.seq, claimed.epoch) == (len(run.bodies), run.epoch + 1)
            run.worker, run.epoch, run.ready = worker, claimed.epoch, False

    def is_due(self, run: Run) -> bool:
        return run.ready or (run.wake_at_us is not None and run.wake_at_us <= self.now_us)

    @rule(pick=PICK, poisoned=st.booleans(), size=st.integers(1, 3), lost=st.booleans())
    def append(self, pick: int, poisoned: bool, size: int, lost: bool) -> None:
        if (run := self.some(pick, held=True)) is not None:
            commit = self.commit(run, size=size)
            self.landed(run, commit, self.do(commit, among_poison=poisoned))
            if lost:
                assert self.do(commit) == Applied(len(run.bodies))

    @rule(pick=PICK, leased=st.integers(1, 30), poisoned=st.booleans())
    def lease(self, pick: int, leased: int, poisoned: bool) -> None:
        if (run := self.some(pick, held=True)) is not None:
            used = sum(each.leased + each.spent for each in self.runs)
            commit = self.commit(run, charge=Charge(Move(*ACCOUNT, leased=leased), LIMIT))
            outcome = self.do(commit, among_poison=poisoned)
            if used + leased > LIMIT:
                assert outcome == Refused("account", "|".join(ACCOUNT))
            else:
                self.landed(run, commit, outcome)
                run.leased += leased

    @rule(pick=PICK, share=st.floats(0, 1))
    def give_back(self, pick: int, share: float) -> None:
        run = self.some(pick, held=True)
        if run is not None and run.leased:
            spent = int(run.leased * share)
            commit = self.commit(run, charge=Charge(Move(*ACCOUNT, returned=run.leased, spent=spent)))
            self.landed(run, commit, self.do(commit))
            run.leased, run.spent = 0, run.spent + spent

    @rule(pick=PICK, wakes=st.booleans())
    def wait(self, pick: int, wakes: bool) -> None:
        if (run := self.some(pick, held=True)) is not None:
            wake_at_us = self.now_us + 7 if wakes else None
            commit = self.commit(run, head=Head("waiting", wake_at_us=wake_at_us, release=True))
            self.landed(run, commit, self.do(commit))
            run.worker, run.status, run.wake_at_us = None, "waiting", wake_at_us

    @rule(pick=PICK)
    def finish(self, pick: int) -> None:
        run = self.some(pick, held=True)
        if run is not None and not run.leased:
            commit = self.commit(run, head=Head("failed", release=True))
            self.landed(run, commit, self.do(commit))
            run.worker, run.status, run.ready, run.wake_at_us = None, "failed", False, None

    @rule(pick=PICK)
    def deliver(self, pick: int) -> None:
        if self.runs:
            run = self.runs[pick % len(self.runs)]
            self.texts += 1
            op = Deliver(run.run_id, "cancel", b"{}", self.now_us, f"token {self.texts}")
            if run.status == "failed":
                assert self.do(op) == Refused("terminal", "failed")
                return
            outcome = self.do(op)
            assert isinstance(outcome, Applied)
            assert self.do(op) == outcome
            run.control += 1
            run.unread.append(outcome.number)
            run.ready = run.ready or run.worker is None

    @rule()
    def change_a_fact(self) -> None:
        self.facts += 1
        assert self.do(SetFact("switches", f"value {self.facts}", self.now_us)) == Applied(self.facts)

    @rule(pick=PICK, step=st.sampled_from([-1, 1]))
    def commit_on_wrong_grounds(self, pick: int, step: int) -> None:
        """Each guard refuses by its own name when it alone is wrong."""
        if (run := self.some(pick, held=True)) is None:
            return
        commit = self.commit(run, charge=Charge(Move(*ACCOUNT, returned=0, spent=0), LIMIT))
        wrong: dict[str, Commit] = {
            "epoch": msgspec.structs.replace(commit, epoch=run.epoch + step),
            "control": msgspec.structs.replace(commit, control=run.control + step),
            "facts": msgspec.structs.replace(commit, facts={"switches": self.facts + step}),
            "seq": msgspec.structs.replace(commit, seq=len(run.bodies) + step),
            "incarnation": msgspec.structs.replace(commit, incarnation=1 + step),
        }
        for guard, refusable in wrong.items():
            outcome = self.do(refusable)
            assert isinstance(outcome, Refused)
            assert outcome.guard == guard

    @rule(pick=PICK)
    def append_without_a_lease(self, pick: int) -> None:
        if self.runs:
            run = self.runs[pick % len(self.runs)]
            if run.worker is None:
                outcome = self.do(self.commit(run))
                assert isinstance(outcome, Refused)
                assert outcome.guard == "epoch"

    @precondition(lambda self: self.applied)
    @rule(pick=PICK, poisoned=st.booleans())
    def send_something_old_again(self, pick: int, poisoned: bool) -> None:
        commit, number = self.applied[pick % len(self.applied)]
        assert self.do(commit, among_poison=poisoned) == Applied(number)

    @precondition(lambda self: self.applied)
    @rule(pick=PICK)
    def send_other_bytes_for_something_old(self, pick: int) -> None:
        commit, _ = self.applied[pick % len(self.applied)]
        self.texts += 1
        last = commit.records[-1]
        for forged in (Record(b'{"forged":%d}' % self.texts, last.payload), Record(last.body, b"forged")):
            records = (*commit.records[:-1], forged)
            assert isinstance(self.do(msgspec.structs.replace(commit, records=records)), Refused)

    @rule()
    def replace_the_owner(self) -> None:
        self.subject.replace_owner()
        for run in self.runs:
            run.ready = run.ready or (run.status == "queued" or run.worker is not None or bool(run.unread))
            run.ready = run.ready and run.status != "failed"
            run.worker = None

    @invariant()
    def journals_are_what_their_holders_appended(self) -> None:
        for run in self.runs:
            events = self.subject.insights.events(run.run_id)
            assert [event.body for event in events] == run.bodies
            assert verify_run(self.subject.insights, run.run_id) == len(run.bodies)

    @invariant()
    def every_run_has_the_holder_that_the_model_knows(self) -> None:
        for run in self.runs:
            row = self.subject.insights.run(run.run_id)
            assert row is not None
            assert (row.worker, row.epoch, row.status) == (run.worker, run.epoch, run.status)
            control, unread, _ = self.subject.insights.inbox(run.run_id)
            assert (control, [item.row for item in unread]) == (run.control, run.unread)

    @invariant()
    def the_ledger_is_the_sum_of_what_was_granted(self) -> None:
        rows = {(row.account, row.dimension): row for row in self.subject.insights.accounts()}
        leased, spent = sum(run.leased for run in self.runs), sum(run.spent for run in self.runs)
        if ACCOUNT in rows:
            row = rows[ACCOUNT]
            assert (row.reserved, row.committed) == (leased, spent)
            assert row.committed + row.reserved <= LIMIT
        else:
            assert (leased, spent) == (0, 0)


class MemoryHistories(Histories):
    def open(self) -> Subject:
        return Memory()


class FileHistories(Histories):
    def open(self) -> Subject:
        return File()


TestMemory = MemoryHistories.TestCase
TestMemory.settings = settings(max_examples=120, stateful_step_count=40)
TestFile = FileHistories.TestCase
TestFile.settings = settings(max_examples=12, stateful_step_count=30)


NOTICED = [
    "epoch not compared",
    "released holder appends",
    "control not compared",
    "facts not compared",
    "incarnation not compared",
    "sequence not compared",
    "repetition appended",
    "payload of a repetition not compared",
    "limit not compared",
    "head not chained",
    "claim keeps the epoch",
    "held run handed out",
    "timer early",
    "delivery wakes nobody",
    "dead owner keeps its runs",
    "delivery does not bump control",
    "token not remembered",
]


@pytest.mark.parametrize(
    "mutant", [bug for bug in MUTANTS if bug.name in NOTICED and bug.store == "memory"], ids=lambda bug: bug.name
)
def test_histories_notice_a_planted_bug(mutant: Mutant) -> None:
    search = settings(max_examples=5_000, stateful_step_count=40, phases=[Phase.generate], database=None, derandomize=True)
    with mutant.planted(), pytest.raises((AssertionError, Corrupt)):
        run_state_machine_as_test(MemoryHistories, settings=search)


def test_every_bug_that_histories_notice_is_planted() -> None:
    assert set(NOTICED) <= {bug.name for bug in MUTANTS if bug.store == "memory"}
