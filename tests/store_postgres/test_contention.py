"""Several sessions at once: guards hold against what commits meanwhile, nobody deadlocks, a claim waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from quarterdeck.core.commit import AddKey, Applied, Charge, Claim, Claimed, Deliver, Refused, SetFact
from quarterdeck.core.events import Move
from quarterdeck.core.identity import EVERY_TENANT, Grant, Role
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.opening import prepare
from quarterdeck.testing.conformance.stand import Hold, admit, claim, done, held
from quarterdeck.testing.mutants_postgres import install, rewritten
from quarterdeck.testing.patching import Plant
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US, admission
from tests.conformance.stands import SwappingStand
from tests.store_postgres.sessions import LOCKED, blocked, runtime, session, until

Scene = Callable[[Server, str, SwappingStand], Awaitable[None]]

_CONTROL = "(op ->> 'control' IS NULL OR control = (op ->> 'control')::bigint)"
_BEFORE = (
    "OR (op ->> 'control' IS NOT NULL AND (SELECT control FROM runs WHERE run_id = op ->> 'run') <> (op ->> 'control')::bigint)"
)
_PLAIN = "(s.control IS NULL OR runs.control = s.control)"
GUARD_OUTSIDE = rewritten(
    ("append", _CONTROL, "true"),
    ("append", "was <> after", f"was <> after {_BEFORE}"),
    ("append_plain", _PLAIN, "true"),
    ("append_plain", "WHERE r.seq = a.after", "WHERE r.seq = a.after AND r.control = a.control"),
)
FACTS_UNLOCKED = rewritten(("take_facts", "pg_advisory_xact_lock_shared(1363430193, 1)", "1"))
ACCOUNTS_UNLOCKED = rewritten(("take_accounts", "PERFORM pg_advisory_xact_lock(1363430194, place)", "PERFORM 1"))
RUNS_UNORDERED = rewritten(  # whoever is first takes them upwards, whoever comes meanwhile downwards
    ("take_runs", "ORDER BY id FOR", "ORDER BY CASE WHEN (SELECT pg_try_advisory_xact_lock(7)) THEN id ELSE -id END FOR")
)
CLAIM_WAITS = rewritten(("claim", "FOR NO KEY UPDATE SKIP LOCKED", "FOR NO KEY UPDATE"))
FIRST_UNLOCKED = rewritten(("add_key", "pg_advisory_xact_lock(1363430193, 2)", "1"))


async def a_cancel_that_commits_meanwhile_stops_the_intent(server: Server, dsn: str, stand: SwappingStand) -> None:
    hold = await held(stand)
    with session(dsn) as other:
        other.execute("UPDATE runs SET control = control + 1 WHERE run_id = 'r1'")
        answer = stand.journal.submit(hold.commit(control=0))
        await blocked(server, dsn, answer)
    assert await answer == Refused("control", "1")
    assert len(stand.insights.events("r1")) == 1


async def a_switch_that_commits_meanwhile_stops_the_intent(server: Server, dsn: str, stand: SwappingStand) -> None:
    hold = await held(stand)
    await done(stand, SetFact("switches", "[]", T0_US))
    with session(dsn) as other:
        other.execute("SELECT take_facts(true)")
        other.execute("UPDATE facts SET version = 2")
        answer = stand.journal.submit(hold.commit(facts={"switches": 1}))
        await blocked(server, dsn, answer)
    assert await answer == Refused("facts", "switches")


def undone(*stands: SwappingStand) -> int:
    """How often the server has undone a batch of these runtimes, as it does to end a deadlock."""
    return sum(stand.journal.repeats for stand in stands if isinstance(stand.journal, PostgresJournal))


async def accounts_in_opposite_order(server: Server, dsn: str, stand: SwappingStand) -> None:
    server.execute(
        "INSERT INTO quarterdeck.accounts SELECT 'n' || n, 'tokens', NULL FROM generate_series(0, 23) AS n ON CONFLICT DO NOTHING",
        dsn,
    )
    names = [f"n{number}" for number in range(24)]
    for name in (*names, *(f"m{number}" for number in range(24))):
        await admit(stand, name)
    holds = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, limit=48)]
    async with runtime(dsn) as second:
        for _ in range(12):
            answers = []
            for place, name in enumerate(names):
                forth, back = (
                    Charge(Move(name, "tokens", leased=1), None),
                    Charge(Move(names[-1 - place], "tokens", leased=1), None),
                )
                answers.append(stand.journal.submit(holds[place].commit(charges=(forth,), inbox=(0,))))
                answers.append(second.journal.submit(holds[24 + place].commit(charges=(back,), inbox=(0,))))
            assert all(isinstance(outcome, Applied) for outcome in await asyncio.gather(*answers))
            for hold in holds:
                hold.seq += 1
        assert [row.reserved for row in stand.insights.accounts()] == [24] * 24
        assert undone(stand, second) == 0


async def room_that_somebody_takes_meanwhile_is_not_given_away(server: Server, dsn: str, stand: SwappingStand) -> None:
    hold = await held(stand)
    hold.seq = await done(stand, hold.commit(charges=(Charge(Move("a", "tokens", leased=1), 10),)))
    with session(dsn) as other:
        other.execute("SELECT take_accounts(ARRAY['a'])")
        other.execute("UPDATE accounts SET reserved = 6")
        answer = stand.journal.submit(hold.commit(charges=(Charge(Move("a", "tokens", leased=5), 10),)))
        await blocked(server, dsn, answer)
    assert await answer == Refused("account", "a|tokens")


async def runs_in_opposite_order(server: Server, dsn: str, stand: SwappingStand) -> None:
    names = [f"n{number}" for number in range(24)]
    for name in names:
        await admit(stand, name)
    async with runtime(dsn) as second:
        for turn in range(6):
            answers = []
            with session(dsn) as other:  # who holds one of them until both batches have begun to take them
                other.execute("SELECT 1 FROM runs WHERE run_id = 'n12' FOR UPDATE")
                for forth, back in zip(names, names[::-1], strict=True):
                    answers.append(stand.journal.submit(Deliver(forth, "signal", b"{}", T0_US, f"{turn} forth")))
                    answers.append(second.journal.submit(Deliver(back, "signal", b"{}", T0_US, f"{turn} back")))
                await until(lambda: server.execute(LOCKED, dsn) == [(2,)] or undone(stand, second) > 0, "both wait for a run")
            assert all(isinstance(outcome, Applied) for outcome in await asyncio.gather(*answers))
        assert {stand.insights.inbox(name)[0] for name in names} == {12}
        assert undone(stand, second) == 0


async def a_claim_waits_for_nobody(server: Server, dsn: str, stand: SwappingStand) -> None:
    await admit(stand, "r1")
    await admit(stand, "r2", T0_US + 1)
    with session(dsn) as other:
        other.execute("UPDATE runs SET control = control + 1 WHERE run_id = 'r1'")
        answer = stand.journal.submit(Claim("w1", 5, T0_US))
        await blocked(server, dsn, answer)
        assert answer.done(), "it did not wait"
    outcome = await answer
    assert isinstance(outcome, Claimed)
    assert [run.run_id for run in outcome.runs] == ["r2"]
    assert [run.run_id for run in await claim(stand)] == ["r1"], "what was skipped is found later"


async def of_many_processes_one_makes_the_first_key(server: Server, dsn: str, stand: SwappingStand) -> None:
    def key(letter: str) -> AddKey:
        return AddKey(letter * 10, bytes(32), "first", "ada", (Grant(EVERY_TENANT, Role.ADMIN),), "root", T0_US, first=True)

    with session(dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(1363430193, 2)")
        other.execute(
            "INSERT INTO api_keys (prefix, digest, label, subject, grants, created_by, created_at_us) VALUES ('b', '', '', '', '[]', '', 0)"
        )
        answer = stand.journal.submit(key("a"))
        await blocked(server, dsn, answer)
    assert await answer == Refused("key", "a" * 10)


SCENES: list[tuple[Scene, Plant]] = [
    (a_cancel_that_commits_meanwhile_stops_the_intent, GUARD_OUTSIDE),
    (a_switch_that_commits_meanwhile_stops_the_intent, FACTS_UNLOCKED),
    (accounts_in_opposite_order, ACCOUNTS_UNLOCKED),
    (room_that_somebody_takes_meanwhile_is_not_given_away, ACCOUNTS_UNLOCKED),
    (runs_in_opposite_order, RUNS_UNORDERED),
    (a_claim_waits_for_nobody, CLAIM_WAITS),
    (of_many_processes_one_makes_the_first_key, FIRST_UNLOCKED),
]


@pytest.mark.parametrize("scene", [scene for scene, _ in SCENES], ids=lambda scene: scene.__name__)
async def test_it_holds(scene: Scene, postgres: Server, database: str) -> None:
    async with runtime(database) as stand:
        await scene(postgres, database, stand)


@pytest.mark.parametrize(("scene", "plant"), SCENES, ids=[scene.__name__ for scene, _ in SCENES])
async def test_it_is_noticed_without(scene: Scene, plant: Plant, postgres: Server, database: str) -> None:
    prepare(database, 1)
    with plant():
        install(database)
    name = postgres.execute("SELECT current_database()", database)[0][0]
    postgres.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '10ms'")
    async with runtime(database) as stand:
        with pytest.raises(AssertionError):
            await scene(postgres, database, stand)


async def test_two_that_admit_under_one_key_at_once_get_one_run(postgres: Server, database: str) -> None:
    async with runtime(database) as first, runtime(database) as second:
        for turn in range(20):
            commits = [admission(f"{side}{turn}", key=f"key {turn}") for side in "ab"]
            both = zip((first, second), commits, strict=True)
            outcomes = await asyncio.gather(*[each.journal.submit(commit) for each, commit in both])
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Applied", "Refused"]
            refused = next(outcome for outcome in outcomes if isinstance(outcome, Refused))
            assert refused.guard == "key"
            assert first.insights.keyed("acme", f"key {turn}", T0_US) == refused.detail
        assert len(first.insights.runs()) == 20


async def test_two_that_admit_one_run_at_once_admit_it_once(postgres: Server, database: str) -> None:
    async with runtime(database) as first, runtime(database) as second:
        for turn in range(20):
            commit = admission(f"n{turn}")
            outcomes = await asyncio.gather(first.journal.submit(commit), second.journal.submit(commit))
            assert outcomes == [Applied(1), Applied(1)]
        assert len(first.insights.runs()) == 20


async def test_many_claimants_of_one_account_never_lease_beyond_its_limit(database: str) -> None:
    async with runtime(database) as first, runtime(database) as second:
        holds: list[Hold] = []
        for side, stand in enumerate((first, second)):
            for number in range(32):
                await admit(stand, f"{side}.{number}")
            holds += [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, f"w{side}", limit=32)]
        assert len(holds) == 64
        granted = 0
        for turn in range(4):
            lease = Charge(Move("tenant:acme", "tokens", leased=3 + turn), 500)
            outcomes = await asyncio.gather(*[hold.stand.journal.submit(hold.commit(charges=(lease,))) for hold in holds])
            for hold, outcome in zip(holds, outcomes, strict=True):
                if isinstance(outcome, Applied):
                    hold.seq, granted = outcome.number, granted + 3 + turn
                else:
                    assert outcome == Refused("account", "tenant:acme|tokens")
            (row,) = first.insights.accounts()
            assert (row.reserved, row.committed) == (granted, 0)
            assert row.limit == 500 >= granted
        assert granted > 500 - 6, "and what there is, is given out"
        assert undone(first, second) == 0
