"""R30: after an erasure nothing of a tenant is left in the file, and every journal still verifies.

Each trial writes runs of several tenants and users, with payloads, messages, inboxes and approvals that hold a mark of their owner, while
others go on writing; erases one tenant or user; then reads the bytes of the whole file, and recomputes every chain.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import Orders, through
from quarterdeck.core.commit import Ask, Claim, Claimed, Commit, Deliver, Head, NewRun, record
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.events import RunAdmitted
from quarterdeck.core.outbox import Post, lane_of
from quarterdeck.ports.store import Journal
from quarterdeck.store.chain import verify_run
from quarterdeck.store.sqlite.opening import connect
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.conformance.stand import note
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.samples import T0_US, contract, salt

TENANTS = ("acme", "umbra", "orbit")
USERS = ("ada", "eve")
RUNS = 24


def mark(tenant: str, user: str) -> bytes:
    """What only the contents of this owner's runs hold."""
    return f"<<secret of {user} at {tenant}>>".encode()


def play(seed: int) -> list[str]:
    """Play one trial; what was wrong."""
    with tempfile.TemporaryDirectory(prefix="quarterdeck-erase-") as folder:
        return asyncio.run(_scene(Path(folder) / "store.db", random.Random(seed)))


async def _scene(path: Path, luck: random.Random) -> list[str]:
    journal = InlineJournal(path)
    owners = {f"r{number}": (luck.choice(TENANTS), luck.choice(USERS)) for number in range(RUNS)}
    for run_id, (tenant, user) in owners.items():
        await written(journal, run_id, tenant, user)
    tenant = luck.choice((None, *TENANTS))
    user = luck.choice(USERS) if tenant is None or luck.random() < 0.5 else None
    insights = SqliteInsights(path)
    orders = Orders(through(journal), insights, SystemClock())
    erased, left = await orders.erase_all(by="ada", reason="asked to", user=user, tenant=tenant)
    meant = {run for run, (of, who) in owners.items() if tenant in (None, of) and user in (None, who)}
    found = [] if set(erased) == meant and not left else [f"erased {sorted(erased)}, meant {sorted(meant)}, left {left}"]
    recorded = {row.run_id for row in insights.erasures()}
    if recorded != meant:
        found.append(f"recorded are {sorted(recorded)}")
    for run_id in owners:
        try:
            verify_run(insights, run_id)
        except Corrupt as error:
            found.append(f"{run_id} does not verify: {error.code}")
    insights.close()
    await journal.close()
    return found + _left(path, owners, meant)


def _left(path: Path, owners: dict[str, tuple[str, str]], meant: set[str]) -> list[str]:
    """Marks in the bytes of the file that should be gone, and those that should be there and are not."""
    db = connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    held = path.read_bytes()
    gone = {owners[run] for run in meant}
    kept = {owners[run] for run in owners.keys() - meant}
    found = [f"the file still holds contents of {who}" for who in gone - kept if mark(*who) in held]
    return found + [f"contents of {who} are gone" for who in kept if mark(*who) not in held]


async def written(journal: Journal, run_id: str, tenant: str, user: str) -> None:
    """A run that has ended, with everything that holds contents."""
    secret = mark(tenant, user)
    described = contract(run_id, tenant=tenant, actor=user)
    admitted = record(RunAdmitted(T0_US, described, 3), secret)
    new = NewRun(tenant, "support", "helpdesk", user, T0_US, salt(run_id), correlation_id="c1")
    await journal.submit(Commit(run_id, 0, 0, journal.incarnation, (admitted,), T0_US, new=new))
    claimed = await journal.submit(Claim("w1", 1, T0_US))
    assert isinstance(claimed, Claimed)
    await journal.submit(Deliver(run_id, "signal", secret, T0_US, "s1"))
    ask = Ask(f"ap_{run_id}", "c1", "refund", "d", user, T0_US + 9, secret)
    post = Post(f"{run_id}:m", lane_of(tenant, "t", run_id), "t", run_id, secret, (("x", secret.decode()),))
    held = record(RunAdmitted(T0_US, described, 3), secret * 200)
    epoch = claimed.runs[0].epoch
    more = Commit(run_id, 1, epoch, journal.incarnation, (held,), T0_US, asks=(ask,), outbox=(post,))
    await journal.submit(more)
    end = Head("succeeded", "completed", "done", release=True)
    await journal.submit(Commit(run_id, 2, epoch, journal.incarnation, (note("end"),), T0_US, head=end))
