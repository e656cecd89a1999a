"""Approvals: one exact proposal, one person's answer, one use."""

from __future__ import annotations

from typing import Literal

import msgspec

from quarterdeck.core.commit import Applied, Ask, CloseApproval, Consume, DecideApproval, Head
from quarterdeck.testing.conformance.stand import (
    Hold,
    Stand,
    admit,
    check,
    claim,
    demand,
    done,
    held,
    note,
    refusal,
    refused,
    rows,
    submit,
    take,
)
from quarterdeck.testing.samples import T0_US

EXPIRY_US = T0_US + 1_000


def _ask(approval: str = "a1", digest: str = "d1", expires_at_us: int = EXPIRY_US) -> Ask:
    return Ask(approval, "t1.0", "refund", digest, "ada", expires_at_us, b'{"amount":5}')


def _decide(
    outcome: Literal["approved", "rejected"] = "approved",
    approval: str = "a1",
    digest: str = "d1",
    by: str = "grace",
    at_us: int = T0_US + 1,
) -> DecideApproval:
    return DecideApproval(approval, digest, outcome, by, "looks right", at_us)


async def _asking(stand: Stand, *asks: Ask) -> Hold:
    hold = await held(stand)
    await hold.append(hold.commit(asks=asks or (_ask(),)))
    return hold


@check(2, "I5")
async def an_approval_is_shown_as_it_was_asked(stand: Stand) -> None:
    """An approval row says what is asked, by whom, until when; lists are by deadline and status."""
    await _asking(stand, _ask("a2", "d2", EXPIRY_US + 1), _ask(), _ask("a3", "d3", EXPIRY_US + 1))
    row = stand.insights.approval("a1")
    demand(row is not None and (row.run_id, row.tenant, row.call, row.tool) == ("r1", "acme", "t1.0", "refund"), "what")
    demand(row is not None and (row.digest, row.shown) == ("d1", b'{"amount":5}'), "exactly")
    demand(row is not None and (row.requested_by, row.expires_at_us) == ("ada", EXPIRY_US), "by whom, until when")
    demand(row is not None and (row.status, row.consumed, row.decided_by) == ("pending", False, ""), "and how it is")
    demand([each.approval for each in stand.insights.approvals()] == ["a1", "a2", "a3"], "the nearest deadline first")
    await done(stand, _decide(approval="a2", digest="d2"))
    demand([each.approval for each in stand.insights.approvals()] == ["a1", "a3"], "pending ones only")
    demand([each.approval for each in stand.insights.approvals(status="approved")] == ["a2"], "or by status")
    demand(len(stand.insights.approvals(status=None)) == 3, "or all")
    demand(len(stand.insights.approvals(status=None, limit=2)) == 2, "no more than asked for")
    demand(stand.insights.approval("nobody") is None, "an unknown one is not there")


@check(1, "I5", "I18")
async def a_decision_reaches_and_wakes_its_run(stand: Stand) -> None:
    """A decision is stored, delivered and bumps control in one step, and wakes the run that waits for it."""
    hold = await _asking(stand)
    await hold.wait("approval:a1", wake_at_us=EXPIRY_US)
    demand(await claim(stand) == (), "the run waits")
    await done(stand, _decide("rejected"))
    row = stand.insights.approval("a1")
    demand(row is not None and (row.status, row.decided_by, row.reason) == ("rejected", "grace", "looks right"), "who")
    control, unread, _ = stand.insights.inbox("r1")
    demand(control == 1 and [each.kind for each in unread] == ["approval"], "the run is told")
    told = {"approval": "a1", "outcome": "rejected", "by": "grace", "reason": "looks right"}
    demand(msgspec.json.decode(unread[0].body) == told, "what was decided, by whom and why")
    await take(stand, "r1", "w2")


@check(3, "I5")
async def a_decision_is_for_the_digest_that_was_seen(stand: Stand) -> None:
    """A decision for another digest is refused by `digest`, for an unknown approval by `approval`; nothing changes."""
    await _asking(stand)
    before = rows(stand, "r1")
    await refused(stand, _decide(digest="d2"), "digest")
    await refused(stand, _decide(approval="nobody"), "approval")
    demand(rows(stand, "r1") == before, "a refused decision changes nothing")


@check(3, "I5")
async def a_decision_after_the_expiry_is_refused(stand: Stand) -> None:
    """From its expiry on, an approval cannot be decided: refused by `expired`."""
    await _asking(stand, _ask(), _ask("a2", "d2"))
    await refused(stand, _decide(at_us=EXPIRY_US), "expired")
    await refused(stand, _decide(at_us=EXPIRY_US + 1), "expired")
    await done(stand, _decide(at_us=EXPIRY_US - 1))


@check(3, "I5")
async def nobody_approves_their_own_request(stand: Stand) -> None:
    """The person who asked cannot decide: refused by `self`."""
    await _asking(stand)
    await refused(stand, _decide(by="ada"), "self")
    row = stand.insights.approval("a1")
    demand(row is not None and row.status == "pending", "it is still pending")


@check(3, "I5")
async def an_approval_is_decided_once(stand: Stand) -> None:
    """A second decision is refused by `decided`, in the same tick too; the very same one again is success."""
    await _asking(stand)
    outcomes = await submit(stand, _decide(), _decide("rejected", by="linus"))
    demand(isinstance(outcomes[0], Applied), "the first decision is applied")
    demand(refusal(outcomes[1], "decided").detail == "approved", "the second is told what was decided")
    await refused(stand, _decide(at_us=T0_US + 2), "decided")
    before = rows(stand, "r1")
    demand(await submit(stand, _decide()) == outcomes[:1], "the same decision again is success")
    demand(rows(stand, "r1") == before, "and changes nothing")
    row = stand.insights.approval("a1")
    demand(row is not None and (row.status, row.decided_by) == ("approved", "grace"), "the first decision stands")


@check(7, "I5")
async def an_approval_is_used_once(stand: Stand) -> None:
    """Only an approved approval is consumed, once, by its exact digest, in time; repeating that commit is success."""
    hold = await _asking(stand)
    use = Consume("a1", "d1", T0_US + 9)
    await refused(stand, hold.commit(consumes=(use,)), "approval")
    await done(stand, _decide())
    before = rows(stand, "r1")
    for wrong in (Consume("a1", "d2", T0_US), Consume("a1", "d1", EXPIRY_US), Consume("a9", "d1", T0_US)):
        await refused(stand, hold.commit(consumes=(wrong,)), "approval")
    await refused(stand, hold.commit(consumes=(use, use)), "approval")
    demand(rows(stand, "r1") == before, "a refused use changes nothing")
    commit = hold.commit(consumes=(use,))
    await hold.append(commit)
    row = stand.insights.approval("a1")
    demand(row is not None and row.consumed, "it is used")
    demand(await done(stand, commit) == hold.seq, "the same append again is success")
    await refused(stand, hold.commit(note("twice"), consumes=(use,)), "approval")


@check(7, "I5")
async def a_rejected_approval_is_never_used(stand: Stand) -> None:
    """A rejected approval cannot be consumed."""
    hold = await _asking(stand)
    await done(stand, _decide("rejected"))
    await refused(stand, hold.commit(consumes=(Consume("a1", "d1", T0_US),)), "approval")


@check(7, "I5")
async def an_approval_is_its_runs_own(stand: Stand) -> None:
    """Another run can neither consume nor close an approval."""
    hold = await _asking(stand)
    await done(stand, _decide())
    await hold.append(hold.commit(asks=(_ask("a2", "d2"),)))
    await admit(stand, "r2")
    other = await take(stand, "r2")
    await refused(stand, other.commit(consumes=(Consume("a1", "d1", T0_US),)), "approval")
    await other.append(other.commit(closes=(CloseApproval("a2", "withdrawn"),)))
    row = stand.insights.approval("a2")
    demand(row is not None and row.status == "pending", "it is still pending")
    await hold.append(hold.commit(consumes=(Consume("a1", "d1", T0_US),)))


@check(2, "I5")
async def a_closed_approval_cannot_be_decided(stand: Stand) -> None:
    """Once expired or withdrawn by its run, an approval is neither decided nor used; a decided one is not closed."""
    hold = await _asking(stand, _ask(), _ask("a2", "d2"), _ask("a3", "d3"))
    await done(stand, _decide(approval="a3", digest="d3"))
    closes = (CloseApproval("a1", "expired"), CloseApproval("a2", "withdrawn"), CloseApproval("a3", "expired"))
    await hold.append(hold.commit(closes=closes))
    demand((await refused(stand, _decide(), "decided")).detail == "expired", "the answer says what became of it")
    demand((await refused(stand, _decide(approval="a2", digest="d2"), "decided")).detail == "withdrawn", "here too")
    await refused(stand, hold.commit(consumes=(Consume("a1", "d1", T0_US),)), "approval")
    await hold.append(hold.commit(consumes=(Consume("a3", "d3", T0_US),)))


@check(3, "I8")
async def an_approval_of_an_ended_run_cannot_be_decided(stand: Stand) -> None:
    """A pending approval of a run that has ended is refused by `terminal`."""
    hold = await _asking(stand)
    await hold.append(hold.commit(head=Head("cancelled", "cancelled", "x", release=True)))
    await refused(stand, _decide(), "terminal")
