"""R13 on PostgreSQL: the answer to a transaction is lost, or the transaction itself, and the same bytes are submitted again.

Every kind of operation that a runtime repeats: an append with a charge, an admission under an idempotency key, a delivery, a claim, the
decision on an approval. The wire is cut before the batch arrives, or after it has arrived and before its answer does. In the end each must
have happened exactly once, and its answer must be that of the one time.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, closing, nullcontext
from pathlib import Path

from proof.fleet import Found, suite_of
from quarterdeck.core.commit import Applied, Ask, Charge, Claim, Claimed, Commit, DecideApproval, Deliver, Op, Outcome
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.events import Move
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.opening import prepare
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing.conformance.stand import note
from quarterdeck.testing.mutants_postgres import MUTANTS, install, rewritten
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US, admission
from quarterdeck.testing.wire import Wire, wire

EACH = 6
"""Times that each kind of operation is cut in one trial."""


class Caller:
    """One runtime behind a wire that is cut under every operation that matters."""

    def __init__(self, journal: Journal, insights: Insights, cut: Wire, luck: random.Random) -> None:
        self.journal = journal
        self.insights = insights
        self.cut = cut
        self.luck = luck
        self.found: list[str] = []
        self.lost = 0
        self.seq: dict[str, int] = {}
        self.epoch: dict[str, int] = {}

    async def once(self, op: Op, marker: bytes) -> Outcome:
        """Submit it while the wire is cut, and again until somebody answers."""
        if self.luck.random() < 0.5:
            self.cut.mute = marker
        else:
            self.cut.deaf = marker
        cuts = self.cut.cuts
        while True:
            try:
                outcome = await self.journal.submit(op)
            except Unavailable:
                self.lost += 1
            else:
                if self.cut.cuts == cuts:
                    self.found.append(f"{type(op).__name__} was not cut")
                return outcome

    async def admits(self, number: int) -> None:
        """A run, once."""
        name = f"r{number}"
        outcome = await self.once(admission(name, incarnation=self.journal.incarnation), name.encode())
        self.expect(outcome, Applied(1), "an admission")
        self.seq[name] = 1

    async def claims(self, number: int) -> None:
        """What was admitted is handed out, once."""
        outcome = await self.once(Claim("w1", 1, T0_US, f"token-{number}"), f"token-{number}".encode())
        runs = outcome.runs if isinstance(outcome, Claimed) else ()
        if [(run.run_id, run.epoch) for run in runs] != [(f"r{number}", 1)]:
            self.found.append(f"a claim was answered {outcome}")
        self.epoch |= {run.run_id: run.epoch for run in runs}

    async def appends(self, number: int) -> None:
        """An event and a charge, once."""
        name = f"r{number}"
        ask = Ask(f"ap{number}", "c1", "refund", "d", "ada", T0_US + 9, b"{}")
        commit = _commit(self, name, f"marked {number}", (Charge(Move("all", "tokens", leased=7), None),), (ask,))
        self.expect(await self.once(commit, f"marked {number}".encode()), Applied(2), "an append")

    async def delivers(self, number: int) -> None:
        """A row of the inbox, once."""
        op = Deliver(f"r{number}", "signal", b'"told %d"' % number, T0_US, f"sent-{number}")
        if not isinstance(outcome := await self.once(op, f"sent-{number}".encode()), Applied):
            self.found.append(f"a delivery was answered {outcome}")

    async def decides(self, number: int) -> None:
        """An approval, once."""
        op = DecideApproval(f"ap{number}", "d", "approved", "bob", "", T0_US + 1)
        if not isinstance(outcome := await self.once(op, f"ap{number}".encode()), Applied):
            self.found.append(f"a decision was answered {outcome}")

    def expect(self, outcome: Outcome, wanted: Applied, what: str) -> None:
        """Note an answer that is not the one that it has to be."""
        if outcome != wanted:
            self.found.append(f"{what} was answered {outcome}")


def _commit(caller: Caller, name: str, text: str, charges: tuple[Charge, ...], asks: tuple[Ask, ...]) -> Op:
    records = (note(text),)
    return Commit(name, 1, caller.epoch.get(name, 1), caller.journal.incarnation, records, T0_US, charges=charges, asks=asks)


async def cut_off(seed: int, plant: AbstractContextManager[object]) -> Found:
    """One trial: every kind of operation, each several times."""
    server = await asyncio.to_thread(Server.start)
    try:
        async with AsyncExitStack() as stack:
            dsn = server.database()
            prepare(dsn, 1)
            with plant:
                install(dsn)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qdw-")))
            cut = await stack.enter_async_context(wire(dsn, folder))
            journal = await PostgresJournal.open(cut.dsn, lambda: 1, 60.0)
            stack.push_async_callback(journal.close)
            insights = stack.enter_context(closing(PostgresInsights(dsn)))
            caller = Caller(journal, insights, cut, random.Random(seed))
            for number in range(EACH):
                stages: tuple[Callable[[int], Awaitable[None]], ...] = (
                    caller.admits,
                    caller.claims,
                    caller.appends,
                    caller.delivers,
                    caller.decides,
                )
                for stage in stages:
                    await stage(number)
            found = caller.found + _counted(insights, server, dsn)
            return found, {"cut": caller.lost, "wrong": len(found)}
    finally:
        await asyncio.to_thread(server.stop)


def _counted(insights: Insights, server: Server, dsn: str) -> list[str]:
    """What has to be there in the end, once."""
    found = []
    for number in range(EACH):
        name = f"r{number}"
        try:
            if (events := verify_run(insights, name)) != 2:
                found.append(f"{name} has {events} events")
        except QuarterdeckError as error:
            found.append(str(error))
        control, rows, _ = insights.inbox(name)
        if (control, [row.kind for row in rows]) != (2, ["signal", "approval"]):
            found.append(f"the inbox of {name} has {[row.kind for row in rows]}, its control is {control}")
    reserved = [row.reserved for row in insights.accounts()]
    found += [] if reserved == [7 * EACH] else [f"reserved is {reserved}, not {7 * EACH}"]
    ((runs, epochs),) = server.execute("SELECT count(*), sum(epoch) FROM quarterdeck.runs", dsn)
    return found if (int(str(runs)), int(str(epochs))) == (EACH, EACH) else [*found, f"{runs} runs were claimed {epochs} times"]


FORGETS = rewritten(("again_or_refused", "AND is_stored(of_run, after, bodies, given)", "AND false"))

SUITES = (
    suite_of(
        "pg-unknown-commit",
        lambda quick: [lambda seed=seed: cut_off(seed, nullcontext()) for seed in range(1, 2 if quick else 21)],
        {
            "an append is not recognised": lambda: cut_off(1, FORGETS()),
            "a claim is not recognised": lambda: cut_off(1, _mutant("repeated claim claims anew")),
            "a delivery is not recognised": lambda: cut_off(
                1, rewritten(("deliver", "token = op ->> 'token';", "false AND token = op ->> 'token';"))()
            ),
        },
    ),
)


def _mutant(name: str) -> AbstractContextManager[object]:
    return next(mutant for mutant in MUTANTS if mutant.name == name).planted()
