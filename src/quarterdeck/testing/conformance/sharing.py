"""What runs share besides accounts: exclusive keys, and rows that the commit of one puts into the inbox of another."""

from __future__ import annotations

from quarterdeck.core.commit import Deliver, Free, Head, Take
from quarterdeck.testing.conformance.stand import Hold, Stand, admit, check, claim, demand, done, held, refused, rows, take
from quarterdeck.testing.samples import T0_US


@check(3, "I2")
async def an_exclusive_key_has_one_holder(stand: Stand) -> None:
    """While a call has an exclusive key, the intent of any other that needs it is refused, whole; once it is free, not."""
    first, second = await held(stand, "r1"), await held(stand, "r2")
    await first.append(first.commit(takes=(Take("invoice:7", "t1"),)))
    before = rows(stand, "r2")
    said = await refused(stand, second.commit(takes=(Take("other", "t1"), Take("invoice:7", "t1"))), "exclusive")
    demand(said.detail == "invoice:7|r1", f"the refusal names the key and who has it: {said.detail}")
    demand(rows(stand, "r2") == before, "and changes nothing")
    await refused(stand, first.commit(takes=(Take("invoice:7", "t2"),)), "exclusive")
    await second.append(second.commit(takes=(Take("other", "t1"),)))
    await first.append(first.commit(takes=(Take("invoice:7", "t1"),)))
    await first.append(first.commit(frees=(Free("invoice:7", "t1"),)))
    await second.append(second.commit(takes=(Take("invoice:7", "t2"),)))
    await refused(stand, first.commit(takes=(Take("invoice:7", "t3"),)), "exclusive")


@check(3, "I2")
async def an_exclusive_key_is_freed_by_its_holder_alone(stand: Stand) -> None:
    """Freeing what another call has does nothing; a key freed and taken in one commit changes hands."""
    first, second = await held(stand, "r1"), await held(stand, "r2")
    await first.append(first.commit(takes=(Take("k", "t1"),)))
    await second.append(second.commit(frees=(Free("k", "t1"),)))
    await first.append(first.commit(frees=(Free("k", "t2"),)))
    await refused(stand, second.commit(takes=(Take("k", "t1"),)), "exclusive")
    await first.append(first.commit(frees=(Free("k", "t1"),), takes=(Take("k", "t2"),)))
    await refused(stand, second.commit(takes=(Take("k", "t1"),)), "exclusive")
    await stand.replace_owner()
    runs = {run.run_id: run for run in await claim(stand, "w2")}
    second = Hold(stand, "r2", runs["r2"].seq, runs["r2"].epoch)
    await refused(stand, second.commit(takes=(Take("k", "t1"),)), "exclusive")


@check(1, "I18")
async def a_commit_delivers_to_another_run(stand: Stand) -> None:
    """A row for another run is there exactly if the commit is: it wakes that run, bumps its control, and is there once."""
    parent = await held(stand, "parent")
    await parent.wait("run:child")
    child = await held(stand, "child")
    told = Deliver("parent", "child", b'{"run_id":"child"}', T0_US, "child:child")
    stale = Hold(stand, "child", child.seq, child.epoch + 1)
    await refused(stand, stale.commit(delivers=(told,)), "epoch")
    demand(stand.insights.inbox("parent")[:2] == (0, []), "a refused commit delivers nothing")
    end = child.commit(head=Head("succeeded", "completed", "done", release=True), delivers=(told,))
    await done(stand, end)
    await done(stand, end)
    control, unread, _ = stand.insights.inbox("parent")
    demand(control == 1 and [row.body for row in unread] == [told.body], f"delivered once: {control}, {unread}")
    await refused(stand, Hold(stand, "parent", parent.seq, parent.epoch).commit(control=0), "epoch")
    await take(stand, "parent")


@check(1, "I8")
async def a_commit_outlives_whom_it_delivers_to(stand: Stand) -> None:
    """That another run has ended, or was never there, is no reason to refuse: it is told nothing."""
    parent = await held(stand, "parent")
    await parent.finish()
    child = await held(stand, "child")
    before = rows(stand, "parent")
    orders = (Deliver("parent", "child", b"{}", T0_US, "t"), Deliver("nobody", "child", b"{}", T0_US, "t"))
    await child.append(child.commit(delivers=orders))
    demand(rows(stand, "parent")[0] == before[0], "an ended run is told nothing")
    await admit(stand, "other")
    await refused(stand, child.commit(delivers=(Deliver("child", "signal", b"{}", T0_US, "t"),)), "poison")
