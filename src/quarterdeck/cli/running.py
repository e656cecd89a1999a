"""``quarterdeck run``: admit a run, see it come to rest or end, say how.

If nobody owns the store, a runtime of the deck is started in this process and the run is driven here, with whatever else is ready
in the store. If another process owns it, the run is admitted as a visitor and driven there. Which of the two it is, is found by
trying to become the owner: there is no moment between asking and acting.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.app.admission import admission_of
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.orders import Orders
from quarterdeck.app.runtime import RunHandle, Runtime
from quarterdeck.app.views import is_at_rest, result_of, row_of, run_view
from quarterdeck.app.wiring import budget_version, check_deck, controls_of
from quarterdeck.cli.following import stored_until_end
from quarterdeck.cli.loops import loop_factory
from quarterdeck.cli.orders import policy_in_force, visiting
from quarterdeck.cli.places import shaping
from quarterdeck.cli.places.verbs import Ended, Watching
from quarterdeck.cli.printing import note, note_admission
from quarterdeck.cli.storefile import Where, driver, incarnation_of, reading
from quarterdeck.core.contract import Envelope
from quarterdeck.core.errors import Unavailable
from quarterdeck.ports.store import Insights, StoredEvent


@dataclass(slots=True)
class _Interrupts:
    """SIGINT and SIGTERM while a runtime is up: the first lets active runs come to rest, the second lets go of them."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def install(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupted() -> None:
            if self.asked.is_set() and task is not None:
                task.cancel()
            self.asked.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)


def run(deck: Quarterdeck, path: Where, envelope: Envelope, watching: Watching) -> Ended:
    """Admit a run and watch it. Raises what admission raises; the run goes on whatever happens to this process."""
    check_deck(deck)
    if isinstance(path, str) and driver(path) is not None:
        return _as_visitor(deck, path, envelope, watching)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_as_owner(deck, path, envelope, watching))
    except Unavailable as error:
        if error.code != "store.owned":
            raise
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    return _as_visitor(deck, path, envelope, watching)


async def _as_owner(deck: Quarterdeck, path: Where, envelope: Envelope, watching: Watching) -> Ended:
    interrupts = _Interrupts()
    async with deck.start(path) as runtime:
        handle = await runtime.admit(envelope)
        _announce(runtime.insights, handle.id, existing=handle.existing, where="in this process")
        interrupts.install()
        tasks = [
            asyncio.ensure_future(_watch(runtime, handle, watching)),
            asyncio.ensure_future(_until_fault(runtime, handle.id)),
            asyncio.ensure_future(interrupts.asked.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, timeout=watching.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        interrupts.asked.set()
        watching.printer.break_line()
        if tasks[0] not in done:
            note("this runtime stops; what it is doing may come to rest first (Ctrl-C: at once)")
    with reading(path) as insights:
        return Ended(shaping.result(result_of(insights, handle.id)), tasks[2] in done)


async def _until_fault(runtime: Runtime, run_id: str) -> None:
    """Never returns; raises what has stopped the store, which nobody who reads events would be told."""
    while True:
        await runtime.resting(run_id)


async def _watch(runtime: Runtime, handle: RunHandle, watching: Watching) -> None:
    if not watching.follow:
        await handle.rest()
        return
    try:
        async for entry in runtime.follow(handle.id):
            if entry.seq:
                _print(watching, StoredEvent(entry.seq, entry.body, entry.payload, None, b""))
            else:
                watching.printer.delta(entry.delta)
    except BrokenPipeError:
        return  # nobody reads any more; the runtime still stops in order


def _print(watching: Watching, stored: StoredEvent) -> None:
    for event in shaping.events([stored], content=True):  # the printer leaves out what is not wanted
        watching.printer.print(event)


def _as_visitor(deck: Quarterdeck, path: Where, envelope: Envelope, watching: Watching) -> Ended:
    run_id, existing = _admit(deck, path, envelope)
    owner = driver(path)
    give_up_s = math.inf if watching.timeout_s is None else time.monotonic() + watching.timeout_s
    interrupted = False
    with reading(path) as insights:
        where = "by the next runtime" if owner is None else f"by {owner}"
        _announce(insights, run_id, existing=existing, where=where)
        try:
            for stored in stored_until_end(insights, run_id, 0, follow=True):
                if stored is not None:
                    if watching.follow:
                        _print(watching, stored)
                elif time.monotonic() > give_up_s or (not watching.follow and is_at_rest(row_of(insights, run_id))):
                    break
                elif owner is not None and isinstance(path, Path) and driver(path) is None:
                    owner = None
                    note("the process that owned the store has ended; the run goes on when a runtime starts")
        except KeyboardInterrupt:
            interrupted = True
        return Ended(shaping.result(result_of(insights, run_id)), interrupted)


def _admit(deck: Quarterdeck, path: Where, envelope: Envelope) -> tuple[str, bool]:
    """Make the run a committed row beside its owner, under the policy set that the owner has in force; its id, and if it was there."""
    clock = SystemClock()
    admission = admission_of(deck, clock, SystemEntropy())
    with reading(path) as insights:
        facts = {row.name: row for row in insights.facts()}
        version = policy_in_force(insights)
        orders = Orders(visiting(path), insights, clock)
        return asyncio.run(
            orders.admit(
                admission,
                envelope,
                version,
                budget_version(deck),
                incarnation_of(path),
                controls=controls_of(facts.get("switches")),
                waits="admission.no_runtime" if driver(path) is None else "",
            )
        )


def _announce(insights: Insights, run_id: str, *, existing: bool, where: str) -> None:
    note(f"run {run_id} {'exists already under this key' if existing else 'is admitted'}; it is driven {where}")
    note_admission(shaping.detail(run_view(insights, run_id), content=False))
