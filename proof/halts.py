"""M3 and I9 on PostgreSQL, in several worker processes: a switch that is committed stops every intent, whoever was about to commit one.

Three workers perform effects as fast as they can. An operator sets a switch; from the moment at which that returns, no journal gets a
further intent that it covers, in any worker, and what it printed of its reach is what the journals say. A worker that never reads switches
again is stopped as well, because the guard is in the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from proof.fleet import Found, Yard, comes, submitted, suite_of, yard
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.switching import is_covered
from quarterdeck.core import events as ev
from quarterdeck.core.controls import Switch, parsed
from quarterdeck.testing.mutants_postgres import MUTANTS

WORKERS = 3
AFTER_S = 2.0
"""For so long the workers may try after a switch."""


async def halted(switch: str, runs: int, plant: AbstractContextManager[object], *, heedless: bool = False) -> Found:
    """Set a switch while three workers act; count what they intend after it."""
    async with (
        yard(plant, latency_s=0.02, active=runs, lease_s=8.0, perform_s=2.0, heedless=heedless) as there,
        there.door() as rt,
    ):
        for number in range(WORKERS):
            await there.worker(f"w{number}")
        await submitted(rt, runs)
        began = await comes(lambda: there.ledger.read_text().count("begun ") >= runs, 60.0)
        done = await rt.switch(switch, by="eve", reason="proof")
        ends = {name: row[0] for name, row in there.rows().items()}
        await asyncio.sleep(AFTER_S)
        covers = parsed(switch)
        late = [f"{run} {call}" for run, end in ends.items() for call in _intents(rt, run, covers, end)]
        beyond = [f"{run} {call}" for run, end in done.reach.ends.items() for call in _intents(rt, run, covers, end)]
        in_flight = sum([len(_open(rt, run, covers, end)) for run, end in done.reach.ends.items()])
        found = [] if began else ["the workers did not begin"]
        found += [f"{len(late)} intents after the switch: {late[:3]}"] if late else []
        found += [f"{len(beyond)} intents behind the ends that were printed"] if beyond else []
        if in_flight != done.reach.in_flight:
            found.append(f"{done.reach.in_flight} were said to be in flight, the journals say {in_flight}")
        opened = {call for run in ends for call in _keys(rt, run)}
        begun = {line.split()[1] for line in there.ledger.read_text().splitlines() if line.startswith("begun ")}
        found += [f"{len(begun - opened)} effects without an intent"] if begun - opened else []
        figures: dict[str, object] = {"switch": switch, "runs": runs, "held": len(done.reach.ends), "in_flight": in_flight}
        if not heedless:
            await rt.switch(switch, on=False, by="eve", reason="over")
            found += [] if await comes(lambda: _ended(there) == runs, 60.0) else ["not every run has ended after it was cleared"]
        return found, figures | {"late": len(late), "effects": len(begun)}


def _events(rt: Runtime, run: str) -> list[ev.Event]:
    return [ev.decode(one.body) for one in rt.insights.events(run)]


def _intents(rt: Runtime, run: str, switch: Switch, end: int) -> list[str]:
    return [getattr(event, "call", "") for event in _events(rt, run)[end:] if is_covered(switch, event)]


def _keys(rt: Runtime, run: str) -> list[str]:
    return [event.key for event in _events(rt, run) if isinstance(event, ev.ToolOpened)]


def _open(rt: Runtime, run: str, switch: Switch, end: int) -> set[str]:
    found: set[str] = set()
    for event in _events(rt, run)[:end]:
        if isinstance(event, ev.ToolOpened | ev.ModelOpened) and is_covered(switch, event):
            found.add(event.call)
        elif isinstance(event, ev.ToolClosed | ev.ModelClosed):
            found.discard(event.call)
    return found


def _ended(there: Yard) -> int:
    ended = "SELECT count(*) FROM quarterdeck.runs WHERE NOT status = ANY (ARRAY['queued', 'running', 'waiting'])"
    return int(str(there.server.execute(ended, there.duty.dsn)[0][0]))


def _unguarded() -> AbstractContextManager[object]:
    plant: Callable[[], AbstractContextManager[object]] = next(one for one in MUTANTS if one.name == "facts not compared").planted
    return plant()


SUITES = (
    suite_of(
        "switch-reach",
        lambda quick: [
            *[
                lambda switch=switch: halted(switch, 30 if quick else 200, nullcontext())
                for switch in ("disable_tool:haul", "freeze") * (1 if quick else 10)
            ],
            lambda: halted("freeze", 30 if quick else 200, nullcontext(), heedless=True),
        ],
        {"facts are not compared": lambda: halted("freeze", 30, _unguarded(), heedless=True)},
    ),
)
