"""Who drives what: runs go to whoever has their code, deaths of owners are remembered, dead letters wait until somebody has decided."""

from __future__ import annotations

import msgspec

from quarterdeck.core.commit import Claim, Claimed, ClaimedRun, GiveBack, Head, SettleLetter
from quarterdeck.testing.conformance.stand import Broken, Hold, Stand, check, claim, demand, done, held, refused, submit
from quarterdeck.testing.samples import T0_US, admission


async def _needing(stand: Stand, run_id: str, needs: str, at_us: int = T0_US) -> None:
    commit = admission(run_id, at_us=at_us, incarnation=stand.journal.incarnation)
    if commit.new is None:
        raise Broken("a sample admission has a new run")
    await done(stand, msgspec.structs.replace(commit, new=msgspec.structs.replace(commit.new, needs=needs)))


async def _claimed(stand: Stand, *programs: str, limit: int = 10) -> list[str]:
    (outcome,) = await submit(stand, Claim("w1", limit, T0_US, programs=programs))
    if not isinstance(outcome, Claimed):
        raise Broken(f"a claim was answered {outcome}")
    return [run.run_id for run in outcome.runs]


@check(9, "I12", "I18")
async def runs_go_to_whoever_has_their_code(stand: Stand) -> None:
    """A claim gives out only what its worker has the code of, in the order of readiness; the rest stays ready."""
    for place, needs in enumerate(("new", "old", "", "old", "new")):
        await _needing(stand, f"n{place}", needs, T0_US + place)
    demand(await _claimed(stand, "other", limit=1) == ["n2"], "what needs nothing is anybody's")
    demand(not stand.insights.due(T0_US, ("other",)) or await _claimed(stand, "other") == [], "the rest is not others'")
    demand(await _claimed(stand, "old", limit=1) == ["n1"], "the first of its own, not the first of all")
    demand(await _claimed(stand, "old", "new") == ["n0", "n3", "n4"], "of two versions, in order of readiness")
    hold = await held(stand, "any")
    await hold.wait(wake_at_us=T0_US)
    await _needing(stand, "late", "new", T0_US - 1)
    demand(await _claimed(stand) == ["any"], "also what wakes again")
    demand([run.run_id for run in await claim(stand)] == ["late"], "who names no code gets all")


@check(1, "I12", "I18")
async def deaths_of_owners_are_remembered(stand: Stand) -> None:
    """Whoever claims a run is told where its journal ended each time that an owner died with it; giving up is no death."""
    hold = await held(stand)
    await hold.wait(wake_at_us=T0_US)
    for deaths in ((), (2,), (2, 3)):
        (run,) = await claim(stand)
        demand(run.deaths == deaths, f"the deaths so far are {deaths}, told were {run.deaths}")
        hold.epoch, hold.seq = run.epoch, run.seq
        if deaths:
            await hold.append()
        await stand.replace_owner()
    (run,) = await claim(stand)
    demand(run.deaths == (2, 3, 4), "each at its sequence")


@check(1, "I11", "I12", "I18")
async def a_run_that_is_given_back_goes_on_elsewhere(stand: Stand) -> None:
    """Who holds a run can give it back as it stands: it is ready for whoever has its code, and no death; nobody else can."""
    await _needing(stand, "r1", "new")
    (run,) = await claim(stand)
    hold = Hold(stand, run.run_id, run.seq, run.epoch)
    await hold.append()
    await refused(stand, GiveBack("r1", hold.epoch - 1, T0_US), "epoch")
    await refused(stand, GiveBack("r1", hold.epoch + 1, T0_US), "epoch")
    await refused(stand, GiveBack("r0", 1, T0_US), "epoch")
    demand(await claim(stand, "w2") == (), "what was refused has changed nothing")
    await hold.append()
    await done(stand, GiveBack("r1", hold.epoch, T0_US))
    await refused(stand, hold.commit(), "epoch")
    await refused(stand, GiveBack("r1", hold.epoch, T0_US), "epoch")
    demand(await _claimed(stand, "old") == [], "it needs the same code as before")
    runs = await claim(stand, "w2")
    demand(runs == (ClaimedRun("r1", hold.seq, hold.epoch + 1),), f"all of it goes on elsewhere and nobody has died: {runs}")
    await refused(stand, GiveBack("r1", hold.epoch, T0_US), "epoch")
    hold.epoch += 1
    await hold.append()


@check(8, "I1", "I8")
async def dead_letters_wait_for_a_decision(stand: Stand) -> None:
    """Runs that failed because something blocked them are listed until one is requeued or dropped; the first word counts."""

    def letters(**filters: object) -> list[str]:
        return [row.run_id for row in stand.insights.dead_letters(**filters)]  # type: ignore[arg-type]

    for name, reason in (("r1", "blocked"), ("r2", "failed"), ("r3", "blocked")):
        hold = await held(stand, name)
        if name == "r1":
            await refused(stand, SettleLetter("r1", "dropped", "ada", "", T0_US), "terminal")
            demand(letters() == [], "a run that goes on is none")
        await hold.append(hold.commit(head=Head("failed", reason, "run.poison", release=True)))
    demand(letters() == ["r3", "r1"], "those that were blocked, newest first")
    demand(letters(limit=1) == ["r3"] and letters(before="r3") == ["r1"], "in pages")
    demand(letters(tenants=["acme"], route="support") == ["r3", "r1"] and letters(route="other") == [], "filtered")
    demand(letters(tenants=["globex"]) == [], "and only their tenants'")
    demand(stand.insights.letter("r3") is None, "nobody has decided")
    await done(stand, SettleLetter("r3", "requeued", "ada", "again", T0_US))
    await done(stand, SettleLetter("r3", "dropped", "bob", "no", T0_US + 1))
    demand(letters() == ["r1"], "what was decided is gone from the list")
    row = stand.insights.letter("r3")
    demand(row is not None and (row.how, row.by, row.why, row.at_us) == ("requeued", "ada", "again", T0_US), "the first counts")
    await refused(stand, SettleLetter("r9", "dropped", "ada", "", T0_US), "run")
    demand(await claim(stand) == (), "and none of this makes anything ready")
