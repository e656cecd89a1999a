"""``quarterdeck journal``: prove that journals are what was appended; destroy contents."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from quarterdeck.cli.options import AsJson, RunArgument, Store
from quarterdeck.cli.orders import erase
from quarterdeck.cli.outcome import report
from quarterdeck.cli.printing import emit, progress, safe, say
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.errors import OUTCOMES, Corrupt
from quarterdeck.ports.store import Insights
from quarterdeck.store.chain import verify_run

group = typer.Typer(help="Verify journals, erase contents.", no_args_is_help=True)

PAGE = 500
"""Runs listed at once."""


class Finding(msgspec.Struct, frozen=True):
    """One journal that is not what was appended."""

    run_id: str
    code: str
    message: str


@group.command()
def verify(
    run: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Only these runs; by default all.")] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> int:
    """Recompute the hash chain of each journal and compare it with its run. Exits 6 if one is not what was appended."""
    runs = events = 0
    findings: list[Finding] = []
    with reading(settings(None, store).store) as insights, progress("runs checked") as step:
        for run_id in run or _every_run(insights):
            runs += 1
            step(runs)
            try:
                events += verify_run(insights, run_id)
            except Corrupt as error:
                findings.append(Finding(run_id, error.code, error.message))
    if as_json:
        emit({"runs": runs, "events": events, "findings": findings})
    else:
        say(f"{runs} runs checked, {events} events verified, {len(findings)} findings")
        for finding in findings:
            report(finding.code, f"run {safe(finding.run_id)}: {finding.message}", {}, as_json=False)
    return OUTCOMES[Corrupt].exit_code if findings else 0


@group.command(name="erase")
def erase_run(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, also at a terminal.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Destroy all contents of a run that has ended, for good: payloads and their key. The journal still verifies."""
    path = settings(None, store).store
    if not yes and sys.stdin.isatty():
        typer.confirm(f"destroy all contents of run {safe(run)} for good?", abort=True, err=True)
    erase(path, run)
    if as_json:
        emit({"run_id": run, "done": "erased"})
    else:
        say(f"the contents of run {safe(run)} are erased")


def _every_run(insights: Insights) -> Iterator[str]:
    before: str | None = None
    while rows := insights.runs(before=before, limit=PAGE):
        yield from (row.run_id for row in rows)
        before = rows[-1].run_id
