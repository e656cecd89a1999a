"""Forks and replays beside a store's owner, or without one: what they need of a deck is wired, and nothing is driven."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Collection

from quarterdeck.app.admission import admission_of
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.forking import Fork, forked
from quarterdeck.app.orders import Apply, Orders
from quarterdeck.app.replaying import Replay, replayed
from quarterdeck.app.views import read_all, row_of
from quarterdeck.app.wiring import budget_version, check_deck, wire
from quarterdeck.core.commit import Op, Outcome
from quarterdeck.core.errors import Unavailable
from quarterdeck.ports.store import Insights


class Unwritten:
    """The write side of a store that nothing is written to."""

    quiesced = True
    failing = False

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation

    def submit(self, op: Op) -> Future[Outcome]:
        """Refused, whatever it is."""
        future: Future[Outcome] = asyncio.get_event_loop_policy().new_event_loop().create_future()
        future.set_exception(Unavailable("store.stopped", "nothing is written from here; give the order to a running service"))
        return future

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Nobody works here."""

    def hints(self, callback: Callable[[], None]) -> None:
        """Nothing becomes ready here."""

    async def close(self) -> None:
        """Nothing to release."""


def replay_beside(deck: Quarterdeck, insights: Insights, run_id: str, incarnation: int) -> Replay:
    """Replay a run of a store that is only read, under this deck."""
    check_deck(deck)
    parts = wire(deck, Unwritten(incarnation), insights, SystemClock(), SystemEntropy(), "replay", judges=False)
    parts.refresh()
    return replayed(parts.services, read_all(insights, run_id))


async def fork_beside(
    deck: Quarterdeck, apply: Apply, insights: Insights, run_id: str, fork: Fork, *, by: str, incarnation: int
) -> str:
    """Admit a fork of a run, under the policy set in force in the store and this deck's code; its id."""
    check_deck(deck)
    clock = SystemClock()
    facts = {row.name: row.value for row in insights.facts()}
    commit = forked(
        admission_of(deck, clock, SystemEntropy()),
        read_all(insights, run_id),
        fork,
        workflow=row_of(insights, run_id).agent in deck.workflows,
        by=by,
        policy_version=facts.get("policy", "")[:16],
        budget_version=budget_version(deck),
        incarnation=incarnation,
    )
    made, _ = await Orders(apply, insights, clock).fork(commit, by=by, source=run_id)
    return made
