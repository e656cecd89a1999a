"""What operators did is told in the audit log, in the transaction of what they did; facts are changed from what was seen."""

from __future__ import annotations

import msgspec

from quarterdeck.core.audit import Audit, entry, read, require_linked
from quarterdeck.core.commit import AddAudit, Applied, DecideApproval, Deliver, Erase, Head, Op, RevokeKey, SetFact
from quarterdeck.core.errors import Corrupt
from quarterdeck.testing.conformance.approving import EXPIRY_US, _ask
from quarterdeck.testing.conformance.stand import Broken, Stand, admit, check, demand, done, held, refused, submit, take
from quarterdeck.testing.samples import T0_US, admission


def _told(action: str, target: str = "r1", at_us: int = T0_US) -> Audit:
    return Audit(action, "ada", target, at_us, "because")


def _whole(stand: Stand) -> list[str]:
    """The actions in the log, whose chain has to hold."""
    found = list(stand.insights.audit())
    try:
        require_linked(found)
    except Corrupt as error:
        raise Broken(f"the audit log is not chained: {error}") from None
    return [read(row).action for row in found]


def _cancel(token: str, audit: Audit | None) -> Deliver:
    return Deliver("r1", "cancel", b'{"by":"ada"}', T0_US, token, audit)


@check(3, "I7")
async def an_action_is_told_with_what_it_does(stand: Stand) -> None:
    """Each kind of operation that carries a record brings its row; without one it brings none."""
    hold = await held(stand)
    await hold.append(hold.commit(asks=(_ask(),)))
    decision = DecideApproval("a1", "d1", "approved", "grace", "fine", EXPIRY_US - 1, b"", _told("decide", "a1"))
    await done(stand, _cancel("t0", None))
    ops: tuple[Op, ...] = (
        _cancel("t1", _told("cancel")),
        decision,
        SetFact("switches", "[]", T0_US, None, _told("switch", "freeze")),
        AddAudit(_told("mark")),
    )
    for outcome in await submit(stand, *ops):
        demand(isinstance(outcome, Applied), "applied")
    await hold.append(hold.commit(head=Head("cancelled", "cancelled", "x", release=True)))
    await done(stand, Erase("r1", T0_US, audit=_told("erase")))
    demand(_whole(stand) == ["cancel", "decide", "switch", "mark", "erase"], "in their order, each once")
    row = stand.insights.audit()[0]
    demand((row.seq, row.body) == (1, entry(_told("cancel"))), "the bytes that were given")
    demand([one.seq for one in stand.insights.audit(2)] == [3, 4, 5], "behind a row")
    demand([one.seq for one in stand.insights.audit(1, 2)] == [2, 3], "and no more than asked for")


@check(3, "I7")
async def a_commit_is_told_with_itself(stand: Stand) -> None:
    """A run that a person asked for brings its row, once, also when its answer was lost; one that is refused brings none."""
    made = msgspec.structs.replace(admission("forked", key="k1"), audit=_told("fork", "forked"))
    await done(stand, made)
    await done(stand, made)
    other = msgspec.structs.replace(admission("other", key="k1"), audit=_told("fork", "other"))
    await refused(stand, other, "key")
    hold = await take(stand, "forked")
    await hold.append(hold.commit())
    demand(_whole(stand) == ["fork"], "with what was applied, and with nothing else")


@check(3, "I7")
async def what_was_refused_is_not_told(stand: Stand) -> None:
    """An operation that is refused leaves no row, and its neighbours' are not touched by it."""
    await admit(stand, "r1")
    unknown = Deliver("nobody", "cancel", b"{}", T0_US, "t", _told("cancel", "nobody"))
    await submit(stand, _cancel("t1", _told("first")), unknown, _cancel("t2", _told("second")))
    await refused(stand, RevokeKey("none", "ada", "", T0_US, _told("revoke")), "key")
    await refused(stand, SetFact("switches", "[]", T0_US, 7, _told("switch")), "facts")
    demand(_whole(stand) == ["first", "second"], "only what was done")


@check(4, "I7")
async def an_action_is_told_once(stand: Stand) -> None:
    """The same operation again, as after a lost answer, tells nothing new; the same action at another time does."""
    await admit(stand, "r1")
    op = _cancel("t1", _told("cancel"))
    await done(stand, op)
    await done(stand, op)
    await submit(stand, AddAudit(_told("mark")), AddAudit(_told("mark")))
    demand(_whole(stand) == ["cancel", "mark"], "once")
    await done(stand, AddAudit(_told("mark", at_us=T0_US + 1)))
    demand(_whole(stand) == ["cancel", "mark", "mark"], "another time is another action")


@check(3, "I9")
async def a_fact_is_changed_from_the_version_that_was_seen(stand: Stand) -> None:
    """Of two who start from the same version, one is refused by `facts`; what was applied is success when it is given again."""
    first = SetFact("switches", '["a"]', T0_US, 0)
    outcomes = await submit(stand, first, SetFact("switches", '["b"]', T0_US, 0))
    demand(isinstance(outcomes[0], Applied) and not isinstance(outcomes[1], Applied), "the first one wins")
    demand(await done(stand, first) == 1, "the same again is success")
    await refused(stand, SetFact("switches", '["c"]', T0_US, 2), "facts")
    demand(await done(stand, SetFact("switches", '["c"]', T0_US, 1)) == 2, "from what is there, it is changed")
    await refused(stand, first, "facts")
    row = next(row for row in stand.insights.facts() if row.name == "switches")
    demand((row.version, row.value) == (2, '["c"]'), "and nothing else has changed it")
