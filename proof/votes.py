"""I5 on PostgreSQL, by several processes: the first to decide an approval has decided it, and a quorum counts different people.

Runs want to pay, and two different people have to approve each payment. Several processes, each of one person, answer whatever waits as
fast as they can, all of them the same approvals; one of them rejects now and then. What each was told is written down, and compared with
the rows, the journals, the audit log and what was paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter, defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event

from proof.fleet import LEASE_S, ROOT, Found, comes, suite_of, yard
from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.app.verifying import check_store
from quarterdeck.cli.orders import decide
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.store.postgres import open_store
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.mutants_postgres import rewritten
from quarterdeck.testing.mutants_runtime import mutant

PEOPLE = ("ann", "bob", "cem", "dee", "eve")
QUORUM = 2


def desk(paid: Path) -> Quarterdeck:
    """Payments that two people approve."""
    deck = Quarterdeck("votes")

    @deck.tool(effect="irreversible")
    async def pay(cents: int, ctx: ToolContext) -> str:
        """Pay."""
        with paid.open("a") as file:
            file.write(f"{ctx.run_id}\n")
        return "paid"

    made = deck.agent(
        "clerk", model=ScriptedModel([[("pay", {"cents": 5})], "over"]), tools=[pay], autonomy="executes_after_approval"
    )
    deck.route("pay", made, quorum=QUORUM)
    return deck


def vote(dsn: str, by: str, told: str) -> None:
    """Answer whatever waits, from when there is a file of the votes until there is none; one line for each answer that counted."""
    number = 0
    with contextlib.closing(PostgresInsights(dsn)) as insights:
        print("ready", flush=True)
        while not Path(told).exists():
            Event().wait(0.005)
        while Path(told).exists():
            for row in insights.approvals(limit=100):
                number += 1
                approve = by != PEOPLE[0] or number % 4 != 0
                with contextlib.suppress(QuarterdeckError):
                    decide(dsn, row.approval, approve=approve, by=by, reason="", digest=row.digest)
                    with contextlib.suppress(OSError), Path(told).open("a") as file:
                        file.write(f"{row.approval} {row.run_id} {by} {'approved' if approve else 'rejected'}\n")


async def voted(runs: int, plant: AbstractContextManager[object], people: tuple[str, ...] = PEOPLE) -> Found:
    """Many payments, and five people in five processes who all want to decide them."""
    async with yard(plant) as there:
        paid, told = there.folder / "paid", there.folder / "told"
        paid.touch()
        dsn = there.duty.dsn
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *[entry for entry in sys.path if entry]])}
        for by in people:
            command = (sys.executable, "-m", "proof.votes", dsn, by, str(told))
            voter = await asyncio.create_subprocess_exec(*command, env=env, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
            there.workers.append(voter)
            if voter.stdout is None or await voter.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{by} cannot vote")
        async with desk(paid).start(open_store=open_store(dsn, lease_s=LEASE_S)) as rt:
            names = [(await rt.submit("pay", number, user="zoe")).id for number in range(runs)]
            await comes(lambda: len(rt.insights.approvals(limit=1_000)) == runs, 30.0)
            told.touch()
            ended = await comes(lambda: _ended(there.server.execute, dsn) == runs, 60.0)
        answers = [line.split() for line in told.read_text().splitlines()]
        told.unlink()
        for voter in there.workers:
            await voter.wait()
        found = [] if ended else ["not every run has ended"]
        found += _judged(names, answers, Counter(paid.read_text().split()))
        with contextlib.closing(PostgresInsights(dsn)) as insights:
            found += [f"{wrong.run_id}: {wrong.code} {wrong.message}" for wrong in check_store(insights, lambda _: None).findings]
        return found, {"runs": runs, "people": len(people), "answers": len(answers), "paid": paid.read_text().count("\n")}


def _judged(runs: list[str], answers: list[list[str]], paid: Counter[str]) -> list[str]:
    """What was told to people, compared with what was paid."""
    twice = [name for name, count in Counter(answer[0] for answer in answers).items() if count > 1]
    found = [f"{len(twice)} approvals were decided more than once"] if twice else []
    approved: dict[str, list[str]] = defaultdict(list)
    rejected = {run for _, run, _, how in answers if how == "rejected"}
    for _, run, by, how in answers:
        approved[run] += [by] if how == "approved" else []
    for run in runs:
        people = set(approved[run])
        due = len(people) >= QUORUM and run not in rejected
        if paid[run] != due:
            found.append(
                f"{run} was approved by {sorted(approved[run])}, rejected: {run in rejected}, and paid {paid[run]} times"
            )
    return found


def _ended(execute: object, dsn: str) -> int:
    ended = "SELECT count(*) FROM quarterdeck.runs WHERE NOT status = ANY (ARRAY['queued', 'running', 'waiting'])"
    return int(str(execute(ended, dsn)[0][0]))  # type: ignore[operator]


TWICE = rewritten(
    ("decide", "asked.status <> 'pending'", "false"),
    ("decide", " AND status = 'pending'", ""),
    ("put_inbox", "content, now_us, name)", "content, now_us, name || random())"),
)
ALONE = mutant(
    "", 0, "I5", ("core.judge:rule", "len(answering.endorsers | {approval.by}) <", "len(answering.endorsers) + 1 <")
).planted  # fmt: skip

SUITES = (
    suite_of(
        "decider-race",
        lambda quick: [lambda: voted(12 if quick else 100, nullcontext()) for _ in range(1 if quick else 10)],
        {
            "an approval is decided twice": lambda: voted(12, TWICE()),
            "one person is two": lambda: voted(12, ALONE(), ("bob",)),
        },
    ),
)

if __name__ == "__main__":
    vote(*sys.argv[1:4])
