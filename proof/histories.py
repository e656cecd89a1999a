"""R15: what several runtimes do to the same runs at once is what could have been done one after the other.

Clients of three runtimes append (some with a control that they have read), deliver, read, give back and claim, on a few runs, with what
they know, which may be stale. The leases of runtimes run out in between, as of one that stands still, and one of the three sees its
connection cut, before a message arrives or before its answer does; then it says the same again. What each was told, and from when to when
it waited, is the history of a run. It is checked by searching for an order of all operations in which the model below gives exactly these
answers, and in which none comes before one that had ended when it began (the algorithm of Wing and Gong, with Lowe's memory of what was
tried).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from proof.fleet import STALE, Found, suite_of
from quarterdeck.core.commit import Applied, Claim, Claimed, Commit, Deliver, GiveBack, Op, Outcome, Refused
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.opening import prepare
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing.conformance.stand import note
from quarterdeck.testing.mutants_postgres import MUTANTS, install
from quarterdeck.testing.patching import patched
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US, admission
from quarterdeck.testing.wire import Wire, wire

RUNS = 3
CLIENTS = 2
"""Clients of each runtime."""
STEPS = 22
"""Operations of each client."""


class State(NamedTuple):
    """One run, as the model has it. ``owner``: which runtime holds it (0: none); ``over``: whose leases have run out, as bits."""

    seq: int = 1
    epoch: int = 0
    control: int = 0
    owner: int = 0
    over: int = 0

    @property
    def lapsed(self) -> bool:
        """Whether who holds it has a lease that has run out: then whoever claims may take it."""
        return bool(self.owner) and bool(self.over >> self.owner & 1)


@dataclass
class Done:
    """One operation of a history: what was asked for by which runtime, what was answered, and when (in ticks of one counter)."""

    kind: str
    owner: int
    said: tuple[int, ...]
    began: int
    ended: int = 0
    answer: tuple[object, ...] = ()
    repeated: bool = False
    """Whether it was said more than once, because nobody knew what became of it."""


def after(state: State, done: Done) -> Iterator[State]:
    """The states that an operation leads to, given that it was answered like this; none if it cannot have been."""
    match done.kind:
        case "append" | "back":
            yield from _after_append(state, done) if done.kind == "append" else _after_back(state, done)
        case "deliver":
            yield state._replace(control=state.control + 1)
        case "read":
            if done.answer == (state.seq, state.epoch):
                yield state
        case "control":
            if done.answer == (state.control,):
                yield state
        case "claim":
            if (not state.owner or state.lapsed) and done.answer == (state.seq, state.epoch + 1):
                yield state._replace(epoch=state.epoch + 1, owner=done.owner)
        case "lapse":
            yield state._replace(over=state.over | 1 << done.owner)
        case "renew":
            yield state._replace(over=state.over & ~(1 << done.owner))


def _after_append(state: State, done: Done) -> Iterator[State]:
    seq, epoch, control = done.said
    mine = state.owner == done.owner and state.epoch == epoch
    if done.answer == ("ok", seq + 1):
        if mine and state.seq == seq and control in (-1, state.control):
            yield state._replace(seq=seq + 1)
    elif done.answer == ("no", "epoch"):
        yield from _not_held(state, mine=mine)
    elif done.answer == ("no", "seq"):
        if mine and state.seq != seq:
            yield state
    elif done.answer == ("no", "control") and mine and control not in (-1, state.control):
        yield state


def _after_back(state: State, done: Done) -> Iterator[State]:
    mine = state.owner == done.owner and state.epoch == done.said[0]
    if done.answer == ("ok",):
        if mine:
            yield state._replace(owner=0)
    elif done.answer == ("no", "epoch"):
        yield from _not_held(state, mine=mine)
        if mine and done.repeated:
            yield state._replace(
                owner=0, lapsed=False
            )  # the first time it was done, the second time there was nothing left to do


def _not_held(state: State, *, mine: bool) -> Iterator[State]:
    """Whoever is told so does not hold the run; if only because somebody who claimed has released what belongs to a lapsed lease."""
    if not mine:
        yield state
    elif state.lapsed:
        yield state._replace(owner=0)


def is_linearizable(history: list[Done]) -> bool:
    """Whether some order explains a run's history."""
    ops = sorted(history, key=lambda done: done.began)
    everything = (1 << len(ops)) - 1
    tried: set[tuple[int, State]] = set()
    stack = [(0, State())]
    while stack:
        seen, state = stack.pop()
        if seen == everything:
            return True
        if (seen, state) in tried:
            continue
        tried.add((seen, state))
        waiting = [place for place in range(len(ops)) if not seen >> place & 1]
        first_end = min([ops[place].ended for place in waiting])
        for place in reversed(waiting):
            if ops[place].began < first_end:
                stack += [(seen | 1 << place, following) for following in after(state, ops[place])]
    return False


@dataclass
class Recorder:
    """The histories of all runs."""

    tick: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    runs: dict[str, list[Done]] = field(default_factory=lambda: defaultdict(list))

    @contextlib.contextmanager
    def one(self, kind: str, owner: int, run_id: str, *said: int) -> Iterator[Done]:
        """Note an operation on one run; its answer is set inside."""
        done = Done(kind, owner, said, next(self.tick))
        yield done
        done.ended = next(self.tick)
        self.runs[run_id].append(done)


class Client:
    """One client of a runtime: what it believes of each run, and what it does."""

    def __init__(self, number: int, journal: PostgresJournal, insights: PostgresInsights, recorder: Recorder, seed: int) -> None:
        self.owner = number
        self.journal = journal
        self.insights = insights
        self.recorder = recorder
        self.luck = random.Random(seed)
        self.known: dict[str, list[int]] = {f"n{run}": [1, 0, 0] for run in range(RUNS)}
        self.cut: Wire | None = None
        self.repeated = False

    async def go(self) -> None:
        """Do this and that."""
        for step in range(STEPS):
            if self.cut is not None and self.luck.random() < 0.1:
                if self.luck.random() < 0.5:
                    self.cut.mute = b"apply"
                else:
                    self.cut.deaf = b"apply"
            await self.act(self.luck.choice(["claim", "append", "append", "append", "deliver", "read", "read", "back"]), step)

    async def act(self, kind: str, step: int) -> None:
        """One operation of a kind."""
        name = self.luck.choice(list(self.known))
        known = self.known[name]
        if kind == "claim":
            await self.claim(step)
        elif kind == "read":
            with self.recorder.one("read", self.owner, name) as done:
                row = await asyncio.to_thread(self.insights.run, name)
                done.answer = (row.seq, row.epoch) if row is not None else ()
            with self.recorder.one("control", self.owner, name) as done:
                control, _, _ = await asyncio.to_thread(self.insights.inbox, name)
                done.answer = (control,)
            if self.luck.random() < 0.8:
                known[0], known[2] = (row.seq if row is not None else 0), control
        elif kind == "deliver":
            token = f"{self.owner}-{self.luck.random()}"
            with self.recorder.one("deliver", self.owner, name):
                outcome = await self.surely(Deliver(name, "signal", b"{}", T0_US, token))
                if not isinstance(outcome, Applied):
                    raise TypeError(outcome)
        elif kind == "back":
            with self.recorder.one("back", self.owner, name, known[1]) as done:
                outcome = await self.surely(GiveBack(name, known[1], T0_US))
                done.answer = ("ok",) if isinstance(outcome, Applied) else _told(outcome)
                done.repeated = self.repeated
        else:
            await self.append(name, known, step)

    async def append(self, name: str, known: list[int], step: int) -> None:
        """Append under what is believed; half of the time only if nothing else has come."""
        seq, epoch, control = known
        guarded = control if self.luck.random() < 0.5 else -1
        records = (note(f"{self.owner} {step} {self.luck.random()}"),)
        commit = Commit(name, seq, epoch, self.journal.incarnation, records, T0_US, control=None if guarded < 0 else guarded)
        with self.recorder.one("append", self.owner, name, seq, epoch, guarded) as done:
            done.answer = _told(await self.surely(commit))
        if done.answer[0] == "ok":
            known[0] = seq + 1

    async def claim(self, step: int) -> None:
        """Claim what there is; each run that is handed out is an operation on that run."""
        dones = {name: Done("claim", self.owner, (), next(self.recorder.tick)) for name in self.known}
        outcome = await self.surely(Claim(f"w{self.owner}-{id(self)}", RUNS, T0_US, str(step)))
        ended = next(self.recorder.tick)
        for run in outcome.runs if isinstance(outcome, Claimed) else ():
            done = dones[run.run_id]
            done.ended, done.answer = ended, (run.seq, run.epoch)
            self.recorder.runs[run.run_id].append(done)
            self.known[run.run_id] = [run.seq, run.epoch, self.known[run.run_id][2]]

    async def surely(self, op: Op) -> Outcome:
        """The outcome of an operation, asked for until it is known."""
        self.repeated = False
        while True:
            try:
                return await self.journal.submit(op)
            except Unavailable:
                self.repeated = True
                await asyncio.sleep(0.005)


def _told(outcome: Outcome) -> tuple[object, ...]:
    return (
        ("no", outcome.guard) if isinstance(outcome, Refused) else ("ok", outcome.number if isinstance(outcome, Applied) else -1)
    )


async def _lapse(server: Server, dsn: str, journals: list[PostgresJournal], recorder: Recorder, seed: int) -> None:
    """The leases of runtimes run out, now and then, as if they had stood still."""
    luck = random.Random(seed)
    while True:
        await asyncio.sleep(luck.uniform(0.005, 0.03))
        number = luck.randrange(len(journals))
        for kind, until in (("lapse", "-infinity"), ("renew", "infinity")):
            statement = f"UPDATE quarterdeck.owners SET lease_until = '{until}' WHERE id = {journals[number].owner}"  # noqa: S608
            with contextlib.ExitStack() as noted:
                for name in [f"n{run}" for run in range(RUNS)]:
                    noted.enter_context(recorder.one(kind, number + 1, name))
                await asyncio.to_thread(server.execute, statement, dsn)


async def played(server: Server, seed: int, plant: AbstractContextManager[object]) -> tuple[list[str], int]:
    """One trial on a database of its own; what was wrong, and how many operations it had."""
    recorder = Recorder()
    async with AsyncExitStack() as stack:
        dsn = stack.enter_context(server.fresh())
        prepare(dsn, 1)
        stack.enter_context(plant)
        install(dsn)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qdw-")))
        cut = await stack.enter_async_context(wire(dsn, folder))
        journals = [await PostgresJournal.open(reached, lambda: 1, 60.0) for reached in (cut.dsn, dsn, dsn)]
        readers = [stack.enter_context(contextlib.closing(PostgresInsights(dsn))) for _ in range(3 * CLIENTS)]
        for journal in journals:
            stack.push_async_callback(journal.close)
        for run in range(RUNS):
            await journals[1].submit(admission(f"n{run}", incarnation=journals[1].incarnation))
        clients = [
            Client(place // CLIENTS + 1, journals[place // CLIENTS], reader, recorder, seed * 100 + place)
            for place, reader in enumerate(readers)
        ]
        clients[0].cut = cut
        lapsing = asyncio.ensure_future(_lapse(server, dsn, journals, recorder, seed))
        await asyncio.gather(*[client.go() for client in clients])
        lapsing.cancel()
        await asyncio.gather(lapsing, return_exceptions=True)
        found = [f"seed {seed}: no order explains {name}" for name, each in recorder.runs.items() if not is_linearizable(each)]
        for name in recorder.runs:
            try:
                verify_run(readers[0], name)
            except QuarterdeckError as error:
                found.append(str(error))
    return found, sum([len(each) for each in recorder.runs.values()])


async def histories(seeds: range, plant: AbstractContextManager[object] | None = None) -> Found:
    """Trials of these seeds on one server; with a planted bug until one has noticed it."""
    server = await asyncio.to_thread(Server.start)
    wrong: list[str] = []
    operations = trials = 0
    try:
        with plant or nullcontext():
            for seed in seeds:
                found, count = await played(server, seed, nullcontext())
                wrong, operations, trials = wrong + found, operations + count, trials + 1
                if wrong and plant is not None:
                    break
    finally:
        await asyncio.to_thread(server.stop)
    return wrong, {"histories": trials * RUNS, "operations": operations, "illegal": len(wrong)}


def _mutant(name: str) -> AbstractContextManager[object]:
    return next(mutant for mutant in MUTANTS if mutant.name == name).planted()


def _remembers() -> AbstractContextManager[object]:
    """Reads that may be answered by what was read before."""
    original = PostgresInsights.run
    seen: dict[str, object] = {}

    def run(self: PostgresInsights, run_id: str) -> object:
        row = original(self, run_id)
        return seen.pop(run_id) if run_id in seen else seen.setdefault(run_id, row)

    return patched(PostgresInsights, "run", run)


SUITES = (
    suite_of(
        "journal-linearizable",
        lambda quick: [lambda: histories(range(1, 4 if quick else 301))],
        {
            "a stale epoch may write": lambda: histories(range(20), STALE()),
            "control is not compared": lambda: histories(range(20), _mutant("control not compared")),
            "a delivery does not bump control": lambda: histories(range(20), _mutant("delivery does not bump control")),
            "reads may be old": lambda: histories(range(20), _remembers()),
        },
    ),
)
