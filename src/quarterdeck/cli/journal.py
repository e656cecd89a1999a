"""``quarterdeck journal``: prove that journals are what was appended; destroy contents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.oversight import Proof, proof_of
from quarterdeck.app.oversight import prove as proven
from quarterdeck.app.verifying import APART, Wrong, check_runs, check_store
from quarterdeck.cli.audit import check_log, show_verified
from quarterdeck.cli.options import AsJson, By, Limit, Reason, RunArgument, Store
from quarterdeck.cli.orders import erase, erase_all
from quarterdeck.cli.outcome import report
from quarterdeck.cli.printing import ago, emit, progress, safe, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.errors import OUTCOMES, Corrupt, UsageError

group = typer.Typer(help="Verify journals, erase contents.", no_args_is_help=True)


@group.command()
def verify(
    run: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Only these runs; by default all.")] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> int:
    """Recompute the hash chain of each journal and of the audit log, and hold accounts, approvals, switches and keys against both.

    Exits 6 if one is not what was appended, or what it follows from.
    """
    there = settings(None, store).store
    with reading(there) as insights, progress("runs checked") as step:
        checked = check_runs(insights, run, step) if run else check_store(insights, step)
    audit = check_log(there, None, None, None) if not run else None
    told = audit.findings if audit is not None else ()
    findings = [*checked.findings, *[Wrong("audit", wrong.code, wrong.message) for wrong in told]]
    if as_json:
        said = {"runs": checked.runs, "events": checked.events, "findings": findings}
        emit(said | ({"audit": audit} if audit is not None else {}))
    else:
        say(f"{checked.runs} runs checked, {checked.events} events verified, {len(findings)} findings")
        if audit is not None:
            show_verified(audit)
        for finding in checked.findings:
            about = "" if finding.run_id in APART else f"run {safe(finding.run_id)}: "
            report(finding.code, f"{about}{safe(finding.message)}", {}, as_json=False)
    return OUTCOMES[Corrupt].exit_code if findings else 0


@group.command()
def proof(run: RunArgument, store: Store = None, as_json: AsJson = False) -> int:
    """Write the proof of one run's effects to stdout, from proposal to outcome, without contents: `prove` checks it anywhere."""
    with reading(settings(None, store).store) as insights:
        found = proof_of(insights, run)
    emit(found)
    return 0


@group.command()
def prove(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A proof, as `journal proof` writes it.")], as_json: AsJson = False
) -> int:
    """Check a proof without a store: its chain, and that each effect was decided, approved and intended as done. Exits 6 if not."""
    try:
        found = proven(msgspec.json.decode(Path(file).read_bytes(), type=Proof))
    except OSError as error:
        raise UsageError("input.missing", f"{file}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UsageError("input.invalid", f"{file} is no proof ({error})") from None
    if as_json:
        emit(found)
    else:
        say(f"{found.events} events, {found.effects} effects, {found.receipts} receipts, {len(found.findings)} findings")
        for finding in found.findings:
            report("journal.proof", finding, {}, as_json=False)
    return OUTCOMES[Corrupt].exit_code if found.findings else 0


@group.command(name="erase")
def erase_run(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The run's id.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Instead: every ended run on behalf of this user.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Instead: every ended run of this tenant.")
    ] = None,
    by: By = None,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, also at a terminal.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Destroy all contents of a run that has ended, for good: payloads, messages and their key. The journal still verifies.

    With --user, --tenant or both: of all such runs that have ended. What was erased, by whom and why is recorded.
    """
    path = settings(None, store).store
    if (run is None) == (user is None and tenant is None):
        raise UsageError("erase.nobody", "say what to erase: one RUN, or --user, --tenant or both")
    what = (
        f"run {safe(run)}"
        if run is not None
        else f"all ended runs of {safe(' of '.join(name for name in (user, tenant) if name))}"
    )
    if not yes and sys.stdin.isatty():
        typer.confirm(f"destroy all contents of {what} for good?", abort=True, err=True)
    if run is not None:
        erase(path, run, by=by or "operator", reason=reason)
        if as_json:
            emit({"run_id": run, "done": "erased"})
        else:
            say(f"the contents of {what} are erased")
        return
    erased, left = erase_all(path, by=by or "operator", reason=reason, user=user, tenant=tenant)
    if as_json:
        emit({"erased": erased, "left": left})
    else:
        say(f"the contents of {len(erased)} runs are erased")
        for name in left:
            say(f"left: run {safe(name)} has not ended; cancel it first, then erase again")


@group.command()
def erasures(limit: Limit = 50, store: Store = None, as_json: AsJson = False) -> None:
    """List what was erased, newest first: whose it was, by whom, and why."""
    with reading(settings(None, store).store) as insights:
        found = insights.erasures(limit)
    if as_json:
        emit({"erasures": [msgspec.structs.asdict(row) for row in found]})
        return
    now_us = SystemClock().now_us()
    rows = [(row.run_id, row.tenant, row.actor, row.by, row.reason, ago(row.at_us, now_us)) for row in found]
    table(("RUN", "TENANT", "USER", "BY", "REASON", "WHEN"), rows, empty="nothing was erased")
