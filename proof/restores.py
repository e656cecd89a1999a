"""R23: an older copy of the database is put back under workers that have gone on since.

They know later states of their runs than the database does. None of what they decided there may be committed any more. Each run goes on
from where the copy stands, and what was done since is done again, under the same idempotency keys.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack, nullcontext

from proof.crew import STEPS, blinded
from proof.fleet import Found, Yard, comes, submitted, suite_of, yard
from quarterdeck.store.postgres import incarnation_of

YOUNGER = "SELECT count(*) FROM quarterdeck.owners WHERE beat_at < '{}'"
CLOCK = "SELECT clock_timestamp()::text"


async def put_back(runs: int, restores: int, *, blind: bool = False) -> Found:
    """So many times: copy the database, let the workers go on, put the copy back. ``blind``: nobody compares what he knows."""
    with ExitStack() as stack:
        if blind:
            blinded(stack)
        async with yard(nullcontext(), latency_s=0.3, active=max(4, runs // 8), blind=blind) as there:
            await there.worker("w0")
            await there.worker("w1")
            found: list[str] = []
            lost = 0
            async with there.door() as rt:
                await submitted(rt, runs)
                for number in range(restores):
                    await comes(lambda part=number: _ended(there) > runs * STEPS * part // (restores + 1), 60.0)
                    await asyncio.to_thread(there.server.copy)
                    before, copied = incarnation_of(there.duty.dsn), await asyncio.to_thread(_events, there)
                    await _renewed(there)
                    floor = _ended(there) + 4
                    await comes(lambda floor=floor: _ended(there) > floor, 30.0)
                    lost += await asyncio.to_thread(_events, there) - copied
                    await asyncio.to_thread(there.server.put_back)
                    noticed = await comes(lambda before=before: incarnation_of(there.duty.dsn) != before, 10.0 if blind else 60.0)
                    found += [] if noticed else [f"restore {number} was not noticed"]
                if not await comes(lambda: there.ended() == runs, 1.0 if blind else 120.0):
                    found.append(f"{runs - there.ended()} of {runs} runs have not ended")
            found += there.findings(runs)
            begun = Counter(line.split()[1] for line in there.ledger.read_text().splitlines() if line.startswith("ended "))
            figures: dict[str, object] = {"runs": runs, "restores": restores, "events_undone": lost}
            figures["repeated_under_the_same_key"] = sum(count > 1 for count in begun.values())
            figures["doubled"] = len(begun) - runs * STEPS
            figures["refused"] = sum(there.log(name).count("another owner") for name in ("w0", "w1"))
            return found, figures


def _ended(there: Yard) -> int:
    return there.ledger.read_text().count("ended ")


def _events(there: Yard) -> int:
    ((count,),) = there.server.execute("SELECT count(*) FROM quarterdeck.events", there.duty.dsn)
    return int(str(count))


async def _renewed(there: Yard) -> None:
    """Wait until every runtime has renewed its lease since now."""
    now = there.server.execute(CLOCK)[0][0]
    await comes(lambda: there.server.execute(YOUNGER.format(now), there.duty.dsn) == [(0,)], 30.0)


SUITES = (
    suite_of(
        "restored-backup",
        lambda quick: [lambda: put_back(24 if quick else 400, 1 if quick else 8)],
        {"nobody compares what he knows": lambda: put_back(16, 1, blind=True)},
    ),
)
"""What `python -m proof` runs."""
