"""``quarterdeck runs``, continued: interrupt, escalate, fork, replay, diff."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from quarterdeck.app.budgets import Budget
from quarterdeck.app.comparing import Line, Told, compared
from quarterdeck.cli.options import (
    AsJson,
    By,
    Context,
    Deadline,
    KeyFile,
    Reason,
    RunArgument,
    Server,
    Store,
    Tokens,
    Tools,
    Turns,
    Usd,
    json_value,
)
from quarterdeck.cli.outcome import Exit
from quarterdeck.cli.places import Place, place
from quarterdeck.cli.printing import emit, safe, say, table
from quarterdeck.cli.runs import group, note_waiting

__all__ = ["group"]


@group.command(name="interrupt")
def interrupt_run(
    run: RunArgument,
    payload: Annotated[str, typer.Option("--input", metavar="JSON|@FILE|-", help="What it is told.")],
    by: By = None,
    trusted: Annotated[bool, typer.Option("--trusted", help="It may steer the run; otherwise it is untrusted content.")] = False,
    token: Annotated[str | None, typer.Option("--token", metavar="TEXT", help="The same again is the same interrupt.")] = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell a run something that goes before whatever it was about to do, also while it waits."""
    value = json_value("--input", payload)
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.interrupt(run, value, by=by, trusted=trusted, token=token)
        if as_json:
            emit(found)
            return
        say(f"run {safe(run)} is told")
        note_waiting(there)


@group.command(name="escalate")
def escalate_run(
    run: RunArgument,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a run, with what it asks people, the concern of the next owner that its route names."""
    with place(store=store, server=server, key_file=key_file) as there:
        owner = there.escalate(run, by=by, reason=reason)
    if as_json:
        emit({"run_id": run, "owner": owner})
    else:
        say(f"run {safe(run)} is the concern of {safe(owner)} now")


@group.command(name="budget")
def raise_budget(
    run: RunArgument,
    turns: Turns = None,
    tools: Tools = None,
    tokens: Tokens = None,
    context: Context = None,
    deadline: Deadline = None,
    usd: Usd = None,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Set limits of a run anew; one that waits at a limit goes on."""
    budget = Budget(turns=turns, tools=tools, tokens=tokens, context=context, deadline=deadline, usd=usd)
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.raise_budget(run, budget, by=by, reason=reason)
        if as_json:
            emit(found)
            return
        say(f"run {safe(run)} has its new limits")
        note_waiting(there)


@group.command(name="fork")
def fork_run(
    run: RunArgument,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step to go on from: done anew, unless --result is given.")],
    result: Annotated[
        str | None, typer.Option("--result", metavar="JSON|@FILE|-", help="The step's result, in place of doing it.")
    ] = None,
    route: Annotated[str | None, typer.Option("--route", metavar="NAME", help="On another route.")] = None,
    by: By = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Go on from a step of a run in a new one, under the code and policies of now. Nothing before the step is done again."""
    value = None if result is None else json_value("--result", result)
    with place(store=store, server=server, key_file=key_file) as there:
        made = there.fork(run, step, by=by, edited=result is not None, result=value, route=route)
        if as_json:
            emit(made)
            return
        say(f"run {safe(made.run_id)} goes on from {safe(step)} of run {safe(run)}")
        note_waiting(there)


@group.command(name="replay")
def replay_run(
    run: RunArgument,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Execute a run again offline, under the code and policies of now. Nothing is done; exits with 1 where it would differ."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.replay(run)
    if as_json:
        emit(found)
    else:
        say(f"{found.steps} steps executed again, {found.decisions} decisions judged again")
        lines = [(str(one.seq or ""), one.kind, one.call, one.recorded, one.now) for one in found.differences]
        table(("SEQ", "WHAT", "STEP", "RECORDED", "NOW"), lines, empty="it would go the same way now")
    if not found.same:
        raise typer.Exit(Exit.FINDINGS)


@group.command(name="diff")
def diff_runs(
    run: RunArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The other run's id.")],
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs step by step; contents are compared, not shown. Exits with 1 where they differ."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = compared(_told(there, run), _told(there, other))
    if as_json:
        emit(msgspec.to_builtins(found))
    else:
        if found.first is not None:
            first = found.pairs[found.first].left or found.pairs[found.first].right
            say(f"the first difference: {safe(first.call if first is not None else '')}")
        lines = [("=" if pair.same else "!", _shown(pair.left), _shown(pair.right)) for pair in found.pairs]
        table(("", run, other), lines, empty="neither run has a step")
    if found.first is not None:
        raise typer.Exit(Exit.FINDINGS)


def _told(there: Place, run: str) -> list[Told]:
    return [Told(one.seq, one.kind, dict(one.body), one.content) for one in there.events(run, 0, follow=False, content=True)]


def _shown(line: Line | None) -> str:
    return "-" if line is None else f"{line.call} {line.what}: {line.ended}{' ' if line.result else ''}{line.result}"
