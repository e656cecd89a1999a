"""R29: code and policies are replaced while workers run. New workers start beside old ones, again and again, under load.

Of a deploy of code: a run of an agent goes on under either version, one of a workflow only under the one that began it. None may be parked,
lost, cut off or done twice for it.

Of policies: from the moment at which a new set is declared, nobody who has an older one may begin anything: every effect that was opened
later must have been opened by a worker with the newest set. And no run may be lost, cut off or done twice for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from proof.crew import STEPS
from proof.fleet import Found, Yard, comes, submitted, suite_of, yard
from quarterdeck.core.events import ModelOpened, RunStarted, ToolOpened
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing import ledger
from quarterdeck.testing.mutants_postgres import rewritten

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


async def deployed(runs: int, versions: int, plant: AbstractContextManager[object]) -> Found:
    """So many deploys: two workers with the other code start, one of the old ones stops at once, one when no run needs it any more."""
    async with yard(plant, latency_s=0.8, active=max(2, runs // versions // 6)) as there:
        found: list[str] = []
        up: list[asyncio.subprocess.Process] = []
        last = ""
        for version in range(versions):
            names = [f"v{version}-{twin}" for twin in range(2)]
            new = [await there.worker(name, code=version) for name in names]
            async with there.door(code=version) as rt:
                await submitted(rt, runs // versions // 2)
                await submitted(rt, runs // versions // 2, "shift")
            if up:
                await _left_in_order(up[0], found)
                if not await comes(partial(_unneeded, there, last), 60.0):
                    found.append(f"runs that need {last} have not ended")
                await _left_in_order(up[1], found)
            up, last = new, _newest(there)
            await comes(partial(_at_work, there, names), 20.0)
        if not await comes(lambda: there.ended() == runs, 60.0):
            found.append(f"{runs - there.ended()} of {runs} runs have not ended")
        wrong, crossed = await asyncio.to_thread(_holders, there)
        found += [f"{wrong} workflows were driven by other code than began them"] if wrong else []
        found += [] if crossed or versions < 2 else ["no run of an agent has crossed a deploy"]
        parked = there.server.execute("SELECT count(*) FROM quarterdeck.runs WHERE status = 'waiting'", there.duty.dsn)[0][0]
        found += [f"{parked} runs are parked"] if parked else []
        found += there.findings(runs)
        lines = there.ledger.read_text().split()
        cut = lines.count("begun") - lines.count("ended")
        found += [f"{cut} effects were cut off"] if cut else []
        found += ["an effect was done twice"] if lines.count("ended") != runs * STEPS else []
        return found, {"runs": runs, "deploys": versions - 1, "crossed": crossed, "wrong_code": wrong, "parked": parked}


async def _left_in_order(worker: asyncio.subprocess.Process, found: list[str]) -> None:
    worker.terminate()
    if await worker.wait():
        found.append(f"a worker ended with status {worker.returncode}")


def _at_work(there: Yard, names: list[str]) -> bool:
    return any(line.split()[-1] in names for line in there.ledger.read_text().splitlines())


def _newest(there: Yard) -> str:
    """The code that the newest run of the workflow needs."""
    asked = "SELECT needs FROM quarterdeck.contracts WHERE route = 'shift' ORDER BY run DESC LIMIT 1"
    return str(there.server.execute(asked, there.duty.dsn)[0][0])


NEEDED = """
SELECT DISTINCT c.needs FROM quarterdeck.contracts c JOIN quarterdeck.runs r ON r.id = c.run
WHERE r.status IN ('queued', 'running', 'waiting')
"""


def _unneeded(there: Yard, needs: str) -> bool:
    return (needs,) not in there.server.execute(NEEDED, there.duty.dsn)


ROUTED = """
SELECT r.run_id, CASE WHEN c.route = 'shift' THEN c.needs END FROM quarterdeck.runs r JOIN quarterdeck.contracts c ON c.run = r.id
ORDER BY r.id
"""


def _holders(there: Yard) -> tuple[int, int]:
    """How many workflows were held by a worker of other code than they need, and how many runs of agents by workers of both versions."""
    wrong, crossed, versions = 0, 0, dict[object, int]()
    with contextlib.closing(PostgresInsights(there.duty.dsn)) as insights:
        for name, needs in there.server.execute(ROUTED, there.duty.dsn):
            started = [event for event in ledger.journal(insights, str(name)) if isinstance(event, RunStarted)]
            held = {int(event.worker[1:].partition("-")[0]) % 2 for event in started}
            if needs is None:
                crossed += len(held) > 1
            else:
                wrong += held != {versions.setdefault(needs, len(versions))}
    return wrong, crossed


ANY_CODE = rewritten(("claim", "WHERE needs BETWEEN p.has AND p.has", "WHERE true"))

SUITES = (
    suite_of(
        "rolling-code",
        lambda quick: [lambda: deployed(48 if quick else 1_200, 3 if quick else 12, nullcontext())],
        {"runs go to whatever code there is": lambda: deployed(32, 2, ANY_CODE())},
    ),
    suite_of(
        "rolling-rules",
        lambda quick: [lambda: replaced(40 if quick else 1_200, 2 if quick else 12)],
        {"a worker does not look at what is declared": lambda: replaced(24, 2, stubborn=True)},
    ),
)
