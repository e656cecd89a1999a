"""Leases: who is alive by the server's clock, what becomes of the runs of those who are not, and who is told of new work."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.core.commit import Claim, Claimed, Deliver, Refused
from quarterdeck.store.postgres import lease
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.testing.conformance.stand import Hold, admit, claim, done, held, refused, take
from quarterdeck.testing.patching import patched
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US
from tests.conformance.stands import SwappingStand
from tests.store_postgres.sessions import runtime, until

EXPIRED = "SELECT count(*) FROM quarterdeck.owners WHERE lease_until < clock_timestamp()"

LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'UPDATE owners%'"


async def expired(server: Server, dsn: str) -> None:
    await until(lambda: server.execute(EXPIRED, dsn) != [(0,)], "a lease has expired")


def stall(stand: SwappingStand) -> PostgresJournal:
    """From here on this runtime's lease is not renewed, as if its machine stood still."""
    journal = stand.journal
    assert isinstance(journal, PostgresJournal)
    journal._lease.stop()
    return journal


async def test_a_runtime_that_stands_still_is_taken_over_and_fenced(postgres: Server, database: str) -> None:
    async with runtime(database, lease_s=0.5) as first, runtime(database) as second:
        hold = await held(first, worker="first")
        assert await claim(second, "second") == ()
        assert not second.insights.due(T0_US)
        stall(first)
        await expired(postgres, database)
        assert second.insights.due(T0_US), "the others learn of it by asking"
        taken = await take(second, "r1", "second")
        assert taken.epoch == hold.epoch + 1
        await refused(first, hold.commit(), "epoch")
        await taken.append()
        await admit(first, "r2")
        again = await claim(first, "first")
        assert [run.run_id for run in again] == ["r2"], "it may come back, as someone new"
        assert not isinstance(await first.journal.submit(Hold(first, "r2", 1, 1).commit()), Refused)


async def test_a_lease_lasts_while_the_loop_turns(postgres: Server, database: str) -> None:
    async with runtime(database, lease_s=0.4) as first, runtime(database) as second:
        hold = await held(first, worker="first")
        started = postgres.execute("SELECT clock_timestamp()")[0][0]
        since = f"SELECT clock_timestamp() > '{started}'::timestamptz + interval '1.5 s'"
        await until(lambda: postgres.execute(since) == [(True,)], "several leases have passed")
        assert await claim(second, "second") == ()
        while postgres.execute(since.replace("1.5", "3")) != [(True,)]:
            pass  # this loop does not turn meanwhile, which is not long enough to count as dead
        assert await claim(second, "second") == ()
        await hold.append()


async def test_a_loop_that_turns_no_more_loses_its_lease(postgres: Server, database: str) -> None:
    with patched(lease, "STALL_S", -1.0):
        async with runtime(database, lease_s=0.3) as first, runtime(database) as second:
            await admit(first, "r1")
            assert [run.run_id for run in await claim(first, "first")] == ["r1"]
            await expired(postgres, database)
            assert [run.epoch for run in await claim(second, "second")] == [2]


async def test_who_claims_after_its_own_lease_has_ended_can_be_taken_over_again(postgres: Server, database: str) -> None:
    """The claim buries its own lease among the others; what it takes then must not be held by somebody who can never expire."""
    async with runtime(database, lease_s=0.3) as first, runtime(database) as second:
        await admit(first, "r1")
        stall(first)
        await expired(postgres, database)
        assert [run.epoch for run in await claim(first, "first")] == [1]
        await expired(postgres, database)
        assert [run.epoch for run in await claim(second, "second")] == [2]


async def test_closing_gives_everything_up_at_once(database: str) -> None:
    async with runtime(database) as second:
        async with runtime(database) as first:
            await held(first, worker="first")
        assert [(run.run_id, run.epoch) for run in await claim(second, "second")] == [("r1", 2)]


async def test_a_workers_name_keeps_nothing_alive(postgres: Server, database: str) -> None:
    """A new runtime under a dead one's name renews its own lease, not the dead one's."""
    async with runtime(database, lease_s=0.3) as first, runtime(database) as second:
        await held(first, worker="same")
        stall(first)
        await expired(postgres, database)
        assert [run.epoch for run in await claim(second, "same")] == [2]


async def test_a_run_that_is_given_up_while_running_is_anothers_at_once(database: str) -> None:
    async with runtime(database) as first, runtime(database) as second:
        hold = await held(first, worker="first")
        await hold.wait("signal")
        await done(second, Deliver("r1", "signal", b"{}", T0_US, "s1"))
        assert [run.epoch for run in await claim(second, "second")] == [2]


async def test_others_are_told_once_of_many_and_nobody_of_their_own(postgres: Server, database: str) -> None:
    async with runtime(database) as first, runtime(database) as second, runtime(database) as third:
        heard = {"first": 0, "second": 0}

        def hear(name: str) -> None:
            heard[name] += 1

        await until(lambda: postgres.execute(LISTENING, database) == [(3,)], "all three listen, and know what was before")
        first.journal.hints(lambda: hear("first"))
        second.journal.hints(lambda: hear("second"))
        await admit(third, "warm")
        await until(lambda: heard == {"first": 1, "second": 1}, "both have heard of another's run")
        await asyncio.gather(*[admit(first, f"n{number}") for number in range(100)])
        await until(lambda: heard["second"] > 1, "the other has heard")
        await admit(third, "last")
        await until(lambda: heard["first"] == 2, "the first hears of another's run again")
        outcome = await second.journal.submit(Claim("second", 200, T0_US))
        assert isinstance(outcome, Claimed)
        assert len(outcome.runs) == 102
        assert heard["first"] == 2, "its own are not told to it"
        assert heard["second"] <= 5, "one notification for many"


@pytest.mark.parametrize("give_up", [True, False])
async def test_closing_twice_is_harmless(database: str, give_up: bool) -> None:
    journal = await PostgresJournal.open(database, lambda: 1)
    await journal.close(give_up=give_up)
    await journal.close()
