"""The outbox: messages that leave with a commit, at least once, lane by lane, until a person has to decide."""

from __future__ import annotations

from quarterdeck.core.commit import DecidePost, Deliver, Erase, SettlePost, Taken, TakenPost, TakePosts
from quarterdeck.core.outbox import Post, lane_of
from quarterdeck.testing.conformance.stand import Hold, Stand, admit, check, demand, done, held, refused, submit, take
from quarterdeck.testing.samples import T0_US

LEASE_US = 60_000_000


def post(name: str, key: str = "k1", topic: str = "orders") -> Post:
    """A message, in the lane of its key."""
    return Post(name, lane_of("acme", topic, key), topic, key, f"body of {name}".encode(), (("content-type", "text/plain"),))


async def taken(stand: Stand, now_us: int = T0_US + 1_000, lease_us: int = LEASE_US, limit: int = 10) -> tuple[TakenPost, ...]:
    """What a relay gets."""
    outcome = (await submit(stand, TakePosts(limit, now_us, lease_us)))[0]
    demand(isinstance(outcome, Taken), f"taking messages was answered {outcome}")
    return outcome.posts if isinstance(outcome, Taken) else ()


def settled(item: TakenPost, outcome: str, *, at_us: int = T0_US + 2_000, due_us: int = 0, code: str = "") -> SettlePost:
    """How the attempt ended."""
    return SettlePost(item.number, item.lane, item.ticket, outcome, at_us, due_us, code)  # type: ignore[arg-type]


async def posted(stand: Stand, *posts: Post, run_id: str = "r1") -> Hold:
    """A run that has recorded these messages."""
    hold = await held(stand, run_id)
    await hold.append(hold.commit(outbox=posts))
    return hold


def status(stand: Stand, message: str) -> str:
    """Where a message stands."""
    row = stand.insights.post(message)
    return row.status if row is not None else ""


@check(2, "I13")
async def a_message_is_recorded_with_its_commit(stand: Stand) -> None:
    """A message is there exactly if its commit is: not after a refusal, once after a repetition."""
    hold = await held(stand)
    stale = Hold(stand, "r1", hold.seq, hold.epoch + 1)
    await refused(stand, stale.commit(outbox=(post("m0"),)), "epoch")
    demand(not stand.insights.posts(), "a refused commit leaves no message")
    commit = hold.commit(outbox=(post("m1"), post("m2")))
    await done(stand, commit)
    await done(stand, commit)
    rows = stand.insights.posts()
    demand([row.message for row in rows] == ["m2", "m1"], f"both, once, newest first: {rows}")
    first = stand.insights.post("m1")
    demand(first is not None and (first.run_id, first.tenant, first.status) == ("r1", "acme", "queued"), "with whose it is")
    demand(first is not None and first.body == b"body of m1" and first.headers == (("content-type", "text/plain"),), "whole")
    demand([row.message for row in stand.insights.posts(before="m2")] == ["m1"], "in pages")
    demand(stand.insights.posts(topic="other") == stand.insights.posts(tenants=["umbra"]) == [], "and by what is asked for")


@check(2, "I13")
async def messages_of_a_lane_leave_one_after_the_other(stand: Stand) -> None:
    """Of each lane only the first is taken, and the next one not before that has left; other lanes go on."""
    await posted(stand, post("a1", "a"), post("a2", "a"), post("b1", "b"))
    demand(stand.insights.posts_due(T0_US + 1_000), "messages are due")
    first = await taken(stand)
    demand(sorted(item.message for item in first) == ["a1", "b1"], f"the first of each lane: {first}")
    item = next(item for item in first if item.message == "a1")
    demand((item.topic, item.key, item.tenant, item.run_id, item.attempts) == ("orders", "a", "acme", "r1", 1), "with all of it")
    demand(item.body == b"body of a1" and item.headers == (("content-type", "text/plain"),), "whole")
    demand(await taken(stand) == () and not stand.insights.posts_due(T0_US + 1_000), "nothing else, while they are on their way")
    await done(stand, settled(item, "delivered"))
    await done(stand, settled(item, "delivered"))
    demand([item.message for item in await taken(stand, T0_US + 3_000)] == ["a2"], "then the next of that lane")
    demand(status(stand, "a1") == "delivered", "and the first has left")


@check(2, "I13")
async def a_failed_message_rests_before_its_next_attempt(stand: Stand) -> None:
    """After a failed attempt the lane rests until its time, what stands behind it too; attempts are counted."""
    await posted(stand, post("m1"), post("m2"))
    (item,) = await taken(stand)
    await done(stand, settled(item, "again", due_us=T0_US + 9_000, code="post.timeout"))
    demand(await taken(stand, T0_US + 8_999) == (), "not before its time")
    (again,) = await taken(stand, T0_US + 9_000)
    demand((again.message, again.attempts) == ("m1", 2) and again.ticket != item.ticket, f"the same once more: {again}")
    row = stand.insights.post("m1")
    demand(row is not None and row.code == "post.timeout", "with what was wrong")


@check(2, "I13")
async def a_dead_message_stops_its_lane_until_a_person_decides(stand: Stand) -> None:
    """Nothing passes a dead message; requeued, it is attempted anew; dropped, the next one leaves."""
    await posted(stand, post("m1"), post("m2"), post("other", "k2"))
    items = {item.message: item for item in await taken(stand)}
    await refused(stand, DecidePost("m1", "drop", "ada", "", T0_US), "post")
    await done(stand, settled(items["m1"], "dead", code="post.refused"))
    await done(stand, settled(items["other"], "delivered"))
    demand(await taken(stand, T0_US * 2) == () and not stand.insights.posts_due(T0_US * 2), "a dead one stops its lane for good")
    demand([row.message for row in stand.insights.posts(status="dead")] == ["m1"], "and is listed")
    await done(stand, DecidePost("m1", "requeue", "ada", "mended", T0_US + 5_000))
    await done(stand, DecidePost("m1", "requeue", "ada", "mended", T0_US + 5_000))
    (item,) = await taken(stand, T0_US + 5_000)
    demand((item.message, item.attempts) == ("m1", 1), f"requeued, it begins anew: {item}")
    await done(stand, settled(item, "dead"))
    await done(stand, DecidePost("m1", "drop", "ada", "not needed", T0_US + 6_000))
    row = stand.insights.post("m1")
    demand(
        row is not None and (row.status, row.decided_by, row.reason) == ("dropped", "ada", "not needed"), "who dropped it is kept"
    )
    demand([item.message for item in await taken(stand, T0_US + 6_000)] == ["m2"], "and the next one leaves")
    await refused(stand, DecidePost("m0", "drop", "ada", "", T0_US), "post")


@check(2, "I13")
async def a_lane_has_one_taker_at_a_time(stand: Stand) -> None:
    """Once a lease has run out another may take the lane; the former taker's answer counts no more, its lateness harms nothing."""
    await posted(stand, post("m1"), post("m2"))
    (slow,) = await taken(stand, lease_us=0)
    (quick,) = await taken(stand)
    demand((quick.message, quick.attempts) == ("m1", 2), "the same message, attempted once more")
    await refused(stand, settled(slow, "dead"), "post")
    await refused(stand, settled(slow, "again", due_us=0), "post")
    demand(await taken(stand) == (), "the lane is still the second taker's")
    await done(stand, settled(quick, "delivered"))
    await done(stand, settled(slow, "delivered"))
    await refused(stand, settled(slow, "again"), "post")
    demand([item.message for item in await taken(stand, T0_US + 3_000)] == ["m2"], "and goes on in order")


@check(1, "I13")
async def concurrent_takers_share_no_lane(stand: Stand) -> None:
    """Many take in one tick: each lane is one taker's."""
    await posted(stand, *[post(f"m{number}", f"k{number}") for number in range(12)])
    outcomes = await submit(stand, *[TakePosts(5, T0_US + 1_000, LEASE_US) for _ in range(4)])
    names = [item.message for outcome in outcomes if isinstance(outcome, Taken) for item in outcome.posts]
    demand(sorted(names) == sorted(f"m{number}" for number in range(12)), f"every lane once: {names}")


@check(1, "I13")
async def messages_survive_their_relay(stand: Stand) -> None:
    """What was being delivered when its relay died is delivered again, in its place; nothing is lost."""
    await posted(stand, post("m1"), post("m2"))
    (item,) = await taken(stand, lease_us=0)
    await stand.replace_owner()
    (again,) = await taken(stand, T0_US + 5_000)
    demand(again.message == item.message == "m1", "the same one, still the first")


@check(2, "I9", "I13")
async def a_cancel_withdraws_what_has_not_begun(stand: Stand) -> None:
    """Messages of a cancelled run that nobody has begun to deliver do not leave; one under way is finished, others' leave."""
    hold = await posted(stand, post("begun"), post("behind"), post("alone", "k2"))
    (item,) = await taken(stand, limit=1)
    await hold.finish()
    other = await posted(stand, post("others"), run_id="r2")
    demand(item.message == "begun", "the first is on its way")
    await done(stand, Deliver("r2", "signal", b"{}", T0_US, "s"))
    demand(status(stand, "others") == "queued", "a signal withdraws nothing")
    row = stand.insights.run("r1")
    demand(row is not None and row.status == "succeeded", "the first run has ended")
    await done(stand, Deliver("r2", "cancel", b"{}", T0_US, "cancel"))
    demand(status(stand, "others") == "withdrawn", "a cancel withdraws what is queued")
    demand(status(stand, "behind") == status(stand, "alone") == "queued", "of that run alone")
    await done(stand, settled(item, "delivered"))
    names = [item.message for item in await taken(stand, T0_US + 3_000)]
    demand(sorted(names) == ["alone", "behind"], f"what is withdrawn does not leave, nor stop its lane: {names}")
    await other.append()


@check(2, "I9", "I13")
async def a_cancel_leaves_what_is_on_its_way(stand: Stand) -> None:
    """A message that was attempted before its run was cancelled is not called back, and its end is recorded."""
    await posted(stand, post("begun"), post("behind"))
    (item,) = await taken(stand)
    await done(stand, Deliver("r1", "cancel", b"{}", T0_US, "cancel"))
    demand((status(stand, "begun"), status(stand, "behind")) == ("queued", "withdrawn"), "only what had not begun")
    await done(stand, settled(item, "delivered"))
    demand(status(stand, "begun") == "delivered" and await taken(stand, T0_US + 9_000) == (), "then nothing is left")


@check(7, "I16")
async def erasing_a_run_erases_its_messages(stand: Stand) -> None:
    """The contents of an erased run's messages are gone; what had not left is withdrawn, and what stands behind goes on."""
    hold = await posted(stand, post("m1"), post("m2", "k2"))
    items = {item.message: item for item in await taken(stand)}
    await done(stand, settled(items["m1"], "dead"))
    await done(stand, settled(items["m2"], "delivered"))
    await hold.finish()
    await posted(stand, post("others"), run_id="r2")
    await done(stand, Erase("r1", T0_US + 7_000, "ada", "asked to"))
    rows = {row.message: row for row in stand.insights.posts()}
    demand(rows["m1"].body == rows["m2"].body == b"" and rows["m1"].headers == (), "no contents are left")
    demand((rows["m1"].status, rows["m2"].status) == ("withdrawn", "delivered"), "what had not left never will")
    demand([item.message for item in await taken(stand, T0_US + 8_000)] == ["others"], "and what stood behind it goes on")
    await admit(stand, "r3")
    await take(stand, "r3")
