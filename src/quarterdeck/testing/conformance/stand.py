"""What a check stands on: a fresh store, few words to drive it with, and one way to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from quarterdeck.core.commit import (
    Applied,
    Ask,
    Charge,
    Claim,
    Claimed,
    ClaimedRun,
    CloseApproval,
    Commit,
    Consume,
    Deliver,
    Free,
    Guard,
    Head,
    Op,
    Outcome,
    Record,
    Refused,
    Take,
    record,
)
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.events import CancelRequested
from quarterdeck.core.outbox import Post
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.chain import verify_run
from quarterdeck.testing.samples import T0_US, admission


class Stand(Protocol):
    """A fresh, empty store for one check, as the author of a store provides it."""

    @property
    def journal(self) -> Journal:
        """The present owner's write side."""
        ...

    @property
    def insights(self) -> Insights:
        """Reads of what is committed."""
        ...

    async def replace_owner(self) -> None:
        """The owner dies without a word, nothing is released, and a new owner opens the same store."""
        ...


OpenStand = Callable[[], AbstractAsyncContextManager[Stand]]
"""Opens a new, empty store, and cleans up after the check."""


class Broken(AssertionError):
    """A store does not keep a promise; the message says which."""


def demand(holds: bool, promise: str) -> None:
    """Fail the check unless ``holds``; asserted in a way that survives ``-O``."""
    if not holds:
        raise Broken(promise)


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of a store. ``point`` is the one of the append contract, ``invariants`` those that lean on it."""

    name: str
    point: int
    invariants: tuple[str, ...]
    promise: str
    body: Callable[[Stand], Awaitable[None]]

    async def run(self, open_stand: OpenStand) -> None:
        """Run it on a store of its own; raises :class:`Broken` if the promise is not kept."""
        async with open_stand() as stand:
            await self.body(stand)


def check(point: int, *invariants: str) -> Callable[[Callable[[Stand], Awaitable[None]]], Check]:
    """Make a function a check; its first docstring line is the promise."""

    def named(body: Callable[[Stand], Awaitable[None]]) -> Check:
        promise = (body.__doc__ or "").strip().partition("\n")[0]
        return Check(body.__name__, point, invariants, promise, body)

    return named


async def submit(stand: Stand, *ops: Op) -> list[Outcome]:
    """Submit operations in one tick, in order, and wait for all answers."""
    return list(await asyncio.gather(*[stand.journal.submit(op) for op in ops]))


async def done(stand: Stand, op: Op) -> int:
    """Submit one operation that has to be applied; its number."""
    outcome = (await submit(stand, op))[0]
    if not isinstance(outcome, Applied):
        raise Broken(f"{type(op).__name__} should have been applied, was answered {outcome}")
    return outcome.number


async def refused(stand: Stand, op: Op, guard: Guard) -> Refused:
    """Submit one operation that has to be refused by ``guard``."""
    return refusal((await submit(stand, op))[0], guard)


def refusal(outcome: Outcome, guard: Guard) -> Refused:
    """The refusal by ``guard`` that an answer has to be."""
    if not isinstance(outcome, Refused) or outcome.guard != guard:
        raise Broken(f"should have been refused by {guard!r}, was answered {outcome}")
    return outcome


async def claim(stand: Stand, worker: str = "w1", limit: int = 10, now_us: int = T0_US, once: str = "") -> tuple[ClaimedRun, ...]:
    """Claim as a worker does; ``once`` is the token under which it can be repeated."""
    outcome = (await submit(stand, Claim(worker, limit, now_us, once)))[0]
    if not isinstance(outcome, Claimed):
        raise Broken(f"a claim was answered {outcome}")
    return outcome.runs


def note(text: str) -> Record:
    """A record with recognisable bytes and no payload."""
    return record(CancelRequested(at_us=T0_US, by="check", reason=text))


@dataclass(slots=True)
class Hold:
    """A run as its holder sees it; ``commit`` builds the next append, ``append`` makes it and moves on."""

    stand: Stand
    run_id: str
    seq: int
    epoch: int

    def commit(
        self,
        *records: Record,
        control: int | None = None,
        facts: dict[str, int] | None = None,
        head: Head | None = None,
        charges: tuple[Charge, ...] = (),
        asks: tuple[Ask, ...] = (),
        consumes: tuple[Consume, ...] = (),
        closes: tuple[CloseApproval, ...] = (),
        inbox: tuple[int, ...] = (),
        delivers: tuple[Deliver, ...] = (),
        outbox: tuple[Post, ...] = (),
        takes: tuple[Take, ...] = (),
        frees: tuple[Free, ...] = (),
    ) -> Commit:
        """The next append of the holder; one note if no records are named."""
        return Commit(
            self.run_id,
            seq=self.seq,
            epoch=self.epoch,
            incarnation=self.stand.journal.incarnation,
            records=records or (note(f"step {self.seq}"),),
            at_us=T0_US + self.seq,
            control=control,
            facts=facts,
            head=head,
            charges=charges,
            asks=asks,
            consumes=consumes,
            closes=closes,
            inbox=inbox,
            delivers=delivers,
            outbox=outbox,
            takes=takes,
            frees=frees,
        )

    async def append(self, commit: Commit | None = None) -> int:
        """Append, which has to succeed; the new sequence."""
        self.seq = await done(self.stand, commit if commit is not None else self.commit())
        return self.seq

    async def finish(self, status: str = "succeeded") -> None:
        """End the run and give it up."""
        await self.append(self.commit(head=Head(status, "completed", "done", release=True)))

    async def wait(self, *on: str, wake_at_us: int | None = None) -> None:
        """Let the run wait, and give it up."""
        head = Head("waiting", "blocked", "waiting", on or ("signal",), wake_at_us, release=True)
        await self.append(self.commit(head=head))


async def admit(stand: Stand, run_id: str, at_us: int = T0_US) -> None:
    """Create a run."""
    await done(stand, admission(run_id, at_us=at_us, incarnation=stand.journal.incarnation))


async def held(stand: Stand, run_id: str = "r1", worker: str = "w1") -> Hold:
    """Create a run and hold it; nothing else may be ready."""
    await admit(stand, run_id)
    return await take(stand, run_id, worker)


async def take(stand: Stand, run_id: str, worker: str = "w1", now_us: int = T0_US) -> Hold:
    """Claim one run that has to be the only one that is ready."""
    runs = await claim(stand, worker, now_us=now_us)
    demand([run.run_id for run in runs] == [run_id], f"a claim should have given {run_id} alone, gave {runs}")
    return Hold(stand, run_id, runs[0].seq, runs[0].epoch)


def verified(stand: Stand, run_id: str) -> int:
    """How many events a run's journal has; it has to verify."""
    try:
        return verify_run(stand.insights, run_id)
    except Corrupt as error:
        raise Broken(f"the journal of {run_id} does not verify: {error}") from None


def rows(stand: Stand, *run_ids: str) -> tuple[object, ...]:
    """Everything that can be read of these runs and of what they share, to compare before and after."""
    insights = stand.insights
    runs = tuple((insights.run(name), list(insights.events(name)), insights.inbox(name)) for name in run_ids)
    shared = (list(insights.approvals(status=None)), list(insights.accounts()), list(insights.facts()))
    return (*runs, *shared, len(insights.runs()), list(insights.posts()))
