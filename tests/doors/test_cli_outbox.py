"""Messages and erasures on the command line, beside a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.core.commit import Claim, Commit, Head, SettlePost, Taken, TakePosts, record
from quarterdeck.core.events import RunFinished, RunStarted
from quarterdeck.core.outbox import Post, lane_of
from quarterdeck.core.vocabulary import Status, StopReason
from quarterdeck.testing.conformance.stand import note
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.samples import T0_US, admission
from tests.doors.cli_shop import Shop, error_of


async def filled(path: Path) -> None:
    """Two runs that have ended and one that has not; of the first, a dead message with another behind it."""
    journal = InlineJournal(path)
    for run_id, tenant in (("r1", "acme"), ("r2", "umbra"), ("r3", "acme")):
        await journal.submit(admission(run_id, tenant=tenant))
        await journal.submit(Claim("w1", 1, T0_US))
        posts = [Post(f"{run_id}:{name}", lane_of(tenant, "orders", "k"), "orders", "k", b'"secret"') for name in ("m1", "m2")]
        outbox = tuple(posts) if run_id == "r1" else ()
        head = Head("succeeded", "completed", "completed", release=True) if run_id != "r3" else None
        begun = record(RunStarted(T0_US, "w1", 1))
        end = record(RunFinished(T0_US, Status.SUCCEEDED, StopReason.COMPLETED, "completed")) if head else note("a word")
        await journal.submit(Commit(run_id, 1, 1, 1, (begun, end), T0_US, head=head, outbox=outbox))
    taken = await journal.submit(TakePosts(1, T0_US, 1))
    assert isinstance(taken, Taken)
    post = taken.posts[0]
    await journal.submit(SettlePost(post.number, post.lane, post.ticket, "dead", T0_US, 0, "webhook.gone"))
    await journal.close()


@pytest.fixture
async def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    await filled(shop.store)
    return shop


def test_a_dead_message_is_found_shown_and_answered(shop: Shop) -> None:
    [dead] = shop.json("outbox", "ls", "--status", "dead")["messages"]
    assert (dead["message"], dead["code"], dead["attempts"]) == ("r1:m1", "webhook.gone", 1)
    assert "secret" not in shop.read("outbox", "show", "r1:m1").stdout
    assert shop.json("outbox", "show", "r1:m1", "--content")["body"] == '"secret"'
    assert error_of(shop.read("outbox", "drop", "r1:m2")) == "outbox.not_dead"
    assert error_of(shop.read("outbox", "drop", "r9:m1")) == "outbox.unknown"
    assert error_of(shop.read("outbox", "ls", "--status", "lost")) == "outbox.status"
    assert shop.json("outbox", "requeue", "r1:m1", "--by", "ada", "--reason", "mended")["status"] == "queued"
    assert "queued" in shop.read("outbox", "ls", "--run", "r1").stdout
    shown = shop.json("outbox", "show", "r1:m1")
    assert (shown["status"], shown["attempts"], shown["decided_by"], shown["reason"]) == ("queued", 0, "ada", "mended")


def test_a_dropped_message_is_kept_as_dropped(shop: Shop) -> None:
    assert "dropped" in shop.read("outbox", "drop", "r1:m1", "--by", "ada").stdout
    assert [row["message"] for row in shop.json("outbox", "ls", "--status", "dropped")["messages"]] == ["r1:m1"]


def test_a_tenant_is_erased_and_what_has_not_ended_is_named(shop: Shop) -> None:
    told = shop.json("journal", "erase", "--tenant", "acme", "--by", "ada", "--reason", "request 17")
    assert told == {"erased": ["r1"], "left": ["r3"]}
    again = shop.read("journal", "erase", "--user", "ada", "--by", "bob", "--yes")
    assert "contents of 2 runs are erased" in again.stdout and "r3 has not ended" in again.stdout
    records = {row["run_id"]: (row["tenant"], row["by"], row["reason"]) for row in shop.json("journal", "erasures")["erasures"]}
    assert records == {"r1": ("acme", "ada", "request 17"), "r2": ("umbra", "bob", "")}
    assert shop.json("outbox", "show", "r1:m1", "--content")["body"] == ""
    assert shop.json("journal", "verify")["findings"] == []
    for wrong in ((), ("r1", "--tenant", "acme")):
        assert error_of(shop.read("journal", "erase", *wrong)) == "erase.nobody"
