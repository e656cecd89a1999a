"""The main job, told step by step: ``python -m examples.support.demo``, or ``make demo``.

It generates the shop, runs every ticket through the local model in a worker process, kills that worker twice in mid-flight, lets
people decide, shows what a hijacked model can and cannot do, and checks at the shop's own ledger that nothing happened twice.
``ONCE=1`` ends after the summary: 0 if the books agree, 1 if they do not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.support import scripted, telling, tickets
from examples.support.people import decide, resolve, shown
from examples.support.reckoning import compare, tally
from examples.support.shop import FOLDER, Shop
from examples.support.stage import Stage
from examples.support.telling import say, title
from examples.support.watching import clock
from quarterdeck import QuarterdeckError

LEAD = "mira (desk lead)"
REFUNDS_BEFORE_KILLS = 3, 5
LETTER_S = 15.0
"""How long the second kill waits for a refund to be under way together with the letter."""


def opening(stage: Stage, files: Sequence[Path]) -> None:
    """What there is, and what will happen."""
    title("A support desk, run by agents")
    customers, orders = stage.shop.size()
    say(f"  The shop: {customers} customers and {orders} orders, made up, in {stage.shop.path}")
    say(f"  The work: {len(files)} tickets from customers, and {len(scripted.CASES)} scripted cases of models that misbehave")
    say(f"  The model: {stage.model}. It only proposes calls of tools. It decides nothing.")
    say(
        "  The gate: checks each proposal (schema, policy, budget, evidence) and writes its decision down before anything is done"
    )
    say(f"  The journal: {stage.store}. Whatever happens to a worker, the next one goes on from there.")
    say("  How to read the lines below:")
    say("    allow  the call was done          DENY  it was not, and why          ASK  it waits for a person")
    say("    DEGRADE  near a limit, the cheaper model takes over                   end  the run ended, with its stop reason")


async def first_worker(stage: Stage, files: Sequence[Path]) -> None:
    """Start on the tickets; SIGKILL in the middle of a refund."""
    title("Part 1: a worker takes the tickets, and is killed in the middle of paying a refund")
    await stage.start(files)
    await stage.until(lambda: _mid_refund(stage), "a refund is paid, and its worker has not heard of it yet")
    await stage.kill()


async def second_worker(stage: Stage, files: Sequence[Path]) -> None:
    """Resume, take on the scripted cases too; SIGKILL in the middle of a letter that nobody can ask about."""
    title(
        "Part 2: a new worker goes on where the other died, takes the scripted cases too, and is killed in the middle of a letter"
    )
    await stage.start(files, scripted_cases=True)
    await stage.until(lambda: _mid_letter(stage), "a letter is under way")
    await stage.kill()


async def third_worker(stage: Stage, files: Sequence[Path]) -> None:
    """Resume again, and finish everything that needs no person."""
    title("Part 3: a third worker finishes everything that needs no person")
    await stage.start(files, scripted_cases=True)
    await stage.until_rest(len(files) + len(scripted.CASES))


async def people(stage: Stage) -> None:
    """One approves, one rejects, one may not; and somebody looks after the letters that nobody knows the end of."""
    title("Part 4: people decide, from another process than the worker's")
    waiting = sorted(stage.watch.approvals(), key=lambda row: stage.watch.name(row.run_id).startswith("scripted:"))
    for row in waiting:
        say(f"  waits: {stage.watch.name(row.run_id):<{telling.NAME}} {shown(row)}")
    for row, approve in zip(waiting, (True, False), strict=False):
        name = stage.watch.name(row.run_id)
        try:
            await decide(stage.store, row, approve=True, by=row.requested_by)
        except QuarterdeckError as error:
            say(f"  {row.requested_by} tries to approve the own request: {error.code}")
        say(f"  {LEAD} {'approves' if approve else 'rejects'} {name}")
        reason = "the pictures show the damage" if approve else "sent back in use; see the handbook"
        before = stage.sequence(row.run_id)
        await decide(stage.store, row, approve=approve, by=LEAD, reason=reason)
        await stage.until_moved(row.run_id, before)
    sent = {letter.key for letter in stage.shop.letters()}
    for run_id, call in stage.doubtful():
        done = f"{run_id}:{call}" in sent
        say(f"  {LEAD} looks at the mail gateway for {stage.watch.name(run_id)}: the letter was {'sent' if done else 'not sent'}")
        before = stage.sequence(run_id)
        await resolve(stage.store, run_id, call, done=done, by=LEAD)
        await stage.until_moved(run_id, before)
    say(
        f"  {len(stage.watch.approvals())} actions still wait for a person; they can wait for a day, as rows, without any process"
    )


def closing(stage: Stage) -> bool:
    """The tables, and whether the books agree."""
    telling.summary(tally(stage.watch), stage.watch)
    compared = compare(stage.watch, stage.shop)
    telling.books(compared)
    return not compared.findings


def _mid_refund(stage: Stage) -> bool:
    """The worst moment: the provider has paid a refund, the worker has not heard of it, and the model is being asked something."""
    under_way = stage.watch.under_way()
    started = {effect.key for _, effect in under_way if effect.name == "issue_refund"}
    if not started or stage.watch.opened["issue_refund"] < REFUNDS_BEFORE_KILLS[0]:
        return False
    return "local" in {effect.name for _, effect in under_way} and not started.isdisjoint(stage.booked())


def _mid_letter(stage: Stage) -> bool:
    """Whether the letter to the silent address was sent unheard of, while a refund and a call of the model are under way, or so long."""
    under_way = stage.watch.under_way()
    sent = {letter.key for letter in stage.shop.letters()}
    opened_at_us = [effect.opened_at_us for run, effect in under_way if run == "scripted:silent_mail" and effect.key in sent]
    if not opened_at_us:
        return False
    enough = stage.watch.opened["issue_refund"] >= REFUNDS_BEFORE_KILLS[1]
    busy = enough and {"issue_refund", "local"} <= {effect.name for _, effect in under_way}
    return busy or (clock.now_us() - opened_at_us[0]) / 1e6 > LETTER_S


async def whole(stage: Stage, once: bool) -> int:
    """The whole job. Returns the exit code."""
    files = sorted(tickets.FOLDER.glob("*.txt"))
    opening(stage, files)
    await first_worker(stage, files)
    await second_worker(stage, files)
    await third_worker(stage, files)
    await people(stage)
    agree = closing(stage)
    return await leave(stage, agree, once)


async def own_ticket(stage: Stage, file: Path, once: bool) -> int:
    """One ticket of somebody's own, the same way, without the accidents."""
    ticket = tickets.read(file)
    title("Your ticket")
    say(f"  From {ticket.sender}: {ticket.text}")
    say(f"  The model: {stage.model}")
    await stage.start([file])
    await stage.until_rest(1)
    agree = closing(stage)
    return await leave(stage, agree, once)


def doors(stage: Stage) -> None:
    """How to go on from another terminal."""
    title("The worker stays up until Ctrl-C")
    command = f"{os.path.relpath(sys.executable)} -m quarterdeck.cli"
    store = f"--store {os.path.relpath(stage.store)}"
    say("  What waits can be decided from another terminal; this one shows how the run goes on:")
    say(f"    {command} approvals ls {store}")
    say(f"    {command} approvals approve APPROVAL --by you {store}")
    say("  And the worker takes more work:")
    say(f"    {command} run triage_ticket --app examples.support.deck:deck --input '\"Where is order A1005?\"' {store}")
    if port := os.environ.get("PORT"):
        say(f"  Nothing serves HTTP yet, so PORT={port} is not used.")


async def leave(stage: Stage, agree: bool, once: bool) -> int:
    """End, or stay up until Ctrl-C so that people can go on deciding."""
    if not once:
        doors(stage)
        await stage.until_interrupted()
    await stage.stop()
    return 0 if agree else 1


def _own_file(options: argparse.Namespace, shop: Shop) -> Path | None:
    """The file of a ticket that was given on the command line, with a sender."""
    if options.file is not None:
        ticket = tickets.read(options.file, "your-ticket")
    elif options.ticket is not None:
        ticket = tickets.Ticket("your-ticket", "anonymous", options.ticket)
    else:
        return None
    if options.sender is not None or ticket.sender == "anonymous":
        sender = options.sender or tickets.sender_of(ticket.text, shop)
        ticket = tickets.Ticket(ticket.name, sender, ticket.text)
    return tickets.write(ticket, shop.path.parent / "tickets")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.support.demo", description="The support desk, with accidents.")
    parser.add_argument("--folder", type=Path, help="where the shop and the journal are made anew (default: build/demo)")
    parser.add_argument("--ticket", help="run only this ticket, given as text")
    parser.add_argument("--file", type=Path, help="run only the ticket of this file")
    parser.add_argument("--from", dest="sender", help="who writes it (default: the buyer of the order that it names)")
    parser.add_argument("--stand-in", action="store_true", help="a scripted stand-in instead of the local model (labelled)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Parse, make the stage, perform."""
    options = _parser().parse_args(arguments)
    own = options.ticket is not None or options.file is not None
    folder = (options.folder or (FOLDER / "own-ticket" if own else FOLDER)).resolve()
    once = bool(os.environ.get("ONCE"))
    try:
        stage = Stage.prepared(folder, stand_in=options.stand_in)
        file = _own_file(options, stage.shop)
        with asyncio.Runner() as runner:
            if file is None:
                return runner.run(stage.performed(lambda: whole(stage, once)))
            return runner.run(stage.performed(lambda: own_ticket(stage, file, once)))
    except QuarterdeckError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
