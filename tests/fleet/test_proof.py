"""The fleet's proof suites at their shortest: workers killed, paused and stopped lose nothing; each is noticed where it is not so."""

from __future__ import annotations

from contextlib import nullcontext

from proof.crowds import expired, ordered, raced
from proof.cuts import FORGETS, cut_off
from proof.fleet import STALE, killed, paused
from proof.histories import Done, histories, is_linearizable
from proof.restores import put_back
from proof.rolling import deployed, replaced
from proof.stops import probed, signalled
from proof.upgrades import interrupted
from quarterdeck.store.postgres.opening import SCHEMA


async def test_a_killed_workers_runs_move_again() -> None:
    found, figures = await killed(6, nullcontext())
    assert (found, figures["in_flight"]) == ([], 6)


async def test_a_paused_worker_writes_nothing_and_would_be_noticed() -> None:
    found, figures = await paused(4, nullcontext())
    assert (found, figures["accepted"]) == ([], 0)
    found, figures = await paused(4, STALE())
    assert found and figures["accepted"] == 4


async def test_replaced_rules_are_given_up_under_load_and_would_be_missed() -> None:
    found, figures = await replaced(16, 2)
    assert (found, figures["opened_late"]) == ([], 0)
    found, figures = await replaced(16, 2, stubborn=True)
    assert found and figures["opened_late"]


async def test_code_is_deployed_beside_older_code() -> None:
    found, figures = await deployed(16, 2, nullcontext())
    assert (found, figures["wrong_code"], figures["parked"]) == ([], 0, 0)


async def test_a_killed_migration_leaves_nothing_and_would_be_noticed() -> None:
    found, figures = await interrupted(SCHEMA, every=5)
    assert (found, figures["undone"]) == ([], figures["kills"])
    found, _ = await interrupted(SCHEMA, every=10, loose=True)
    assert found


async def test_a_hanging_database_holds_neither_probes_nor_a_stop() -> None:
    found, _ = await signalled("the database hangs")
    assert found == []
    found, _ = await probed("hangs")
    assert found == []


async def test_a_database_that_was_put_back_is_noticed_and_would_be_missed() -> None:
    found, figures = await put_back(16, 1)
    assert (found, figures["doubled"]) == ([], 0)
    assert figures["events_undone"]
    found, _ = await put_back(8, 1, blind=True)
    assert "restore 0 was not noticed" in found


async def test_claimants_in_several_processes_never_spend_more_than_there_is() -> None:
    found, figures = await raced(1, nullcontext())
    assert (found, figures["differences"]) == ([], 0)


async def test_lines_and_messages_keep_their_order_when_a_worker_dies() -> None:
    found, figures = await ordered(8, 1, nullcontext())
    assert found == []
    assert figures["messages"] >= 8


async def test_a_key_that_its_provider_has_forgotten_is_not_used_again() -> None:
    found, figures = await expired(2, 3)
    assert (found, figures["repeated"], figures["unknown"]) == ([], 0, 2)


async def test_what_was_cut_off_happened_once_and_would_be_missed() -> None:
    found, figures = await cut_off(1, nullcontext())
    assert found == []
    assert figures["cut"]
    found, _ = await cut_off(1, FORGETS())
    assert found


async def test_every_history_has_an_order() -> None:
    found, figures = await histories(range(1, 3))
    assert (found, figures["histories"]) == ([], 6)


def test_a_history_without_an_order_is_noticed() -> None:
    claim = Done("claim", 1, (), 1, 2, (1, 1))
    first, second = Done("append", 1, (1, 1, -1), 3, 5, ("ok", 2)), Done("append", 1, (1, 1, -1), 4, 6, ("ok", 2))
    told = Done("append", 1, (1, 1, -1), 4, 6, ("no", "seq"))
    assert is_linearizable([claim, first, told])
    assert not is_linearizable([claim, first, second]), "two appended at one sequence"
    assert not is_linearizable([claim, first, Done("read", 2, (), 7, 8, (1, 1))]), (
        "a read that is older than what had ended before it"
    )
    assert is_linearizable([claim, first, Done("read", 2, (), 4, 8, (1, 1))])
    assert not is_linearizable([claim, Done("claim", 2, (), 3, 4, (1, 2))]), "a run that is held"
    assert is_linearizable([claim, Done("lapse", 1, (), 2, 3), Done("claim", 2, (), 4, 5, (1, 2))])
    over = [claim, Done("lapse", 1, (), 2, 3), Done("renew", 1, (), 4, 5)]
    assert not is_linearizable([*over, Done("claim", 2, (), 6, 7, (1, 2))]), "a lease that was renewed"
