"""R29, in part: policies are replaced while workers run. New workers start beside old ones, again and again, under load.

From the moment at which a new set is declared, nobody who has an older one may begin anything: every effect that was opened later must have
been opened by a worker with the newest set. And no run may be lost, cut off or done twice for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import nullcontext

from proof.fleet import Found, Yard, comes, submitted, suite_of, yard
from quarterdeck.core.events import ModelOpened, RunStarted, ToolOpened
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing import ledger

POLICY = "permit(principal, action, resource);\nforbid(principal, action, resource) when {{ context.turn > {} }};"
"""A set of which every version permits all that these runs do."""
FREE = 100_000


async def replaced(runs: int, versions: int, *, stubborn: bool = False) -> Found:
    """So many versions of the rules, each declared by a new worker while the older ones work."""
    async with yard(nullcontext(), latency_s=0.1, active=2 if runs < 100 else 20, stubborn=stubborn) as there:
        ranks: dict[str, int] = {}
        declared_us: list[int] = []
        idle: list[int] = []
        async with there.door() as rt:
            for version in range(versions):
                for twin in range(2 if not version else 1):
                    name = f"w{version}-{twin}"
                    ranks[name] = version
                    await there.worker(name, rules=POLICY.format(FREE + version))
                declared_us.append(time.time_ns() // 1_000)
                before = there.ledger.read_text().count("begun")
                await submitted(rt, runs // versions)
                enough = before + runs // versions
                await comes(lambda enough=enough: there.ledger.read_text().count("begun") > enough, 30.0)
            if not await comes(lambda: there.ended() == runs):
                idle.append(runs - there.ended())
        late = await asyncio.to_thread(_opened_late, there, ranks, declared_us)
        found = [f"{idle[0]} of {runs} runs have not ended"] if idle else []
        found += [f"{late} effects were opened under rules that had been replaced"] if late else []
        found += there.findings(runs)
        given = sum([there.log(name).count("worker.superseded: newer") for name in ranks])
        if not stubborn and given < versions:
            found.append(f"only {given} workers have noticed")
        return found, {"runs": runs, "versions": versions, "opened_late": late, "noticed": given}


def _opened_late(there: Yard, ranks: dict[str, int], declared_us: list[int]) -> int:
    late = 0
    with contextlib.closing(PostgresInsights(there.duty.dsn)) as insights:
        for name in there.rows():
            holder = 0
            for event in ledger.journal(insights, name):
                if isinstance(event, RunStarted):
                    holder = ranks[event.worker]
                elif isinstance(event, (ToolOpened, ModelOpened)):
                    late += any(event.at_us > at_us for at_us in declared_us[holder + 1 :])
    return late


SUITES = (
    suite_of(
        "rolling-rules",
        lambda quick: [lambda: replaced(40 if quick else 1_200, 2 if quick else 12)],
        {"a worker does not look at what is declared": lambda: replaced(24, 2, stubborn=True)},
    ),
)
