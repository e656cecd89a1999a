"""Lists as doors show them: whose rows, in pages, and what a key or a count means at this moment."""

from __future__ import annotations

import msgspec

from quarterdeck.core.commit import Ask
from quarterdeck.core.errors import UsageError
from quarterdeck.testing.conformance.stand import Broken, Hold, Stand, check, claim, demand, done
from quarterdeck.testing.samples import DAY_US, T0_US, admission


async def _of(stand: Stand, run_id: str, tenant: str, correlation: str = "c1", key: str | None = None) -> None:
    commit = admission(run_id, tenant=tenant, key=key)
    if commit.new is None:
        raise Broken("a sample admission has a new run")
    new = msgspec.structs.replace(commit.new, correlation_id=correlation)
    await done(stand, msgspec.structs.replace(commit, new=new))


@check(1, "I15")
async def runs_are_listed_for_those_tenants_alone(stand: Stand) -> None:
    """A list of runs holds those of the named tenants only, in every page and under every other filter."""
    for number in range(6):
        await _of(stand, f"n{number}", ("acme", "globex", "initech")[number % 3], "odd" if number % 2 else "even")

    def named(**filters: object) -> list[str]:
        return [row.run_id for row in stand.insights.runs(**filters)]  # type: ignore[arg-type]

    demand(named(tenants={"acme"}) == ["n3", "n0"], "one tenant's runs, newest first")
    demand(named(tenants={"acme", "globex"}) == ["n4", "n3", "n1", "n0"], "those of two")
    demand(named(tenants=["acme", "globex"], before="n3", limit=1) == ["n1"], "a page of them")
    demand(named(tenants=()) == [] == named(tenants={"nobody"}), "nobody's, where nobody is named")
    demand(named(tenants={"acme"}, status="failed") == [], "with a status")
    demand(named(correlation="odd") == ["n5", "n3", "n1"], "by correlation")
    demand(named(correlation="odd", tenants={"acme"}) == ["n3"], "and both")
    demand(len(named()) == 6, "all, where none are named")


@check(1, "I15")
async def approvals_are_listed_for_those_tenants_alone_and_in_pages(stand: Stand) -> None:
    """A list of approvals holds those of the named tenants only; pages go on after the one that the last ended with."""
    for run_id, tenant in (("r1", "acme"), ("r2", "globex")):
        await _of(stand, run_id, tenant)
    for claimed in await claim(stand):
        hold = Hold(stand, claimed.run_id, claimed.seq, claimed.epoch)
        asks = [Ask(f"{claimed.run_id}-a{n}", f"t{n}.0", "refund", f"d{n}", "ada", T0_US + (n + 1) // 2, b"{}") for n in range(3)]
        await hold.append(hold.commit(asks=tuple(asks)))

    def named(**filters: object) -> list[str]:
        return [row.approval for row in stand.insights.approvals(**filters)]  # type: ignore[arg-type]

    everything = ["r1-a0", "r2-a0", "r1-a1", "r1-a2", "r2-a1", "r2-a2"]
    demand(named() == everything, "by deadline, then by name")
    demand(named(tenants={"globex"}) == ["r2-a0", "r2-a1", "r2-a2"], "one tenant's")
    demand(named(tenants={"globex"}, after="r2-a0", limit=1) == ["r2-a1"], "a page of them")
    demand([named(after=name, limit=1) for name in everything[:-1]] == [[name] for name in everything[1:]], "one after the other")
    demand(named(after="r2-a2") == [] == named(tenants=()), "nothing after the last, and nobody's")
    try:
        stand.insights.approvals(after="nobody")
    except UsageError as error:
        demand(error.code == "cursor.unknown", "an unknown place is named so")
    else:
        raise Broken("a page after an unknown approval should be refused")


@check(2, "I2", "I15")
async def a_key_names_its_run_until_it_expires(stand: Stand) -> None:
    """The run of an idempotency key can be looked up by its tenant, until the key expires."""
    await _of(stand, "r1", "acme", key="k1")
    demand(stand.insights.keyed("acme", "k1", T0_US) == "r1", "it names its run")
    demand(stand.insights.keyed("globex", "k1", T0_US) is None, "not for another tenant")
    demand(stand.insights.keyed("acme", "k2", T0_US) is None, "nor under another key")
    demand(stand.insights.keyed("acme", "k1", T0_US + DAY_US) is None, "nor when its time is over")
    demand(stand.insights.keyed("acme", "k1", T0_US + DAY_US - 1) == "r1", "but until then")


@check(1)
async def runs_that_have_not_ended_are_counted_by_status(stand: Stand) -> None:
    """The count of standing runs leaves out those that have ended."""
    for run_id in ("r1", "r2", "r3"):
        await _of(stand, run_id, "acme")
    demand(dict(stand.insights.standing()) == {"queued": 3}, "queued ones")
    first, second = [Hold(stand, each.run_id, each.seq, each.epoch) for each in await claim(stand, limit=2)]
    await first.finish()
    await second.wait()
    demand(dict(stand.insights.standing()) == {"queued": 1, "waiting": 1}, "ended ones are left out")
