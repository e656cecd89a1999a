"""The main job, told step by step: ``python -m examples.support.demo``, or ``make demo``.

It generates the shop, starts the service, sends every ticket over HTTP to an agent on the local model, kills the service twice in
mid-flight, lets people decide, shows what a hijacked model can and cannot do, and checks at the shop's own ledger that nothing
happened twice. ``ONCE=1`` ends after the summary: 0 if the books agree, 1 if they do not. ``PORT`` is where the service listens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.support import doors, scripted, telling, tickets
from examples.support.journals import stored, under_way
from examples.support.people import shown
from examples.support.reckoning import compare, tally
from examples.support.shop import FOLDER, Shop
from examples.support.stage import MAIL_DESK, Stage
from examples.support.telling import say, title
from examples.support.watching import clock
from quarterdeck import QuarterdeckError, UsageError
from quarterdeck.client import ApprovalDetail, AsyncClient, ClientError

LEAD = "desk-lead"
PORT = 8321
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
    say(f"  The journals: {stage.store}. Each run (one ticket, worked on) has one: all that was decided and done.")
    say(
        "  The service: holds all this behind HTTP. If it dies, the next one goes on from the journals, and clients go on reading."
    )
    say("  How to read the lines below:")
    say("    allow  the call was done          DENY  it was not, and why          ASK  it waits for a person")
    say("    DEGRADE  near a limit, the cheaper model takes over                   end  the run ended, with its stop reason")


async def first_service(stage: Stage, files: Sequence[Path]) -> None:
    """Send the tickets; SIGKILL in the middle of a refund."""
    title("Part 1: the mail desk sends the tickets, and the service is killed in the middle of paying a refund")
    await stage.start()
    say(f"  [a key is made for {MAIL_DESK}: with it one may ask for runs on behalf of customers, and decide nothing]")
    await stage.send(files)
    await stage.until(lambda: _mid_refund(stage), "a refund is paid, and the service has not heard of it yet")
    await stage.kill()


async def second_service(stage: Stage, files: Sequence[Path]) -> None:
    """Go on, take the scripted cases too; SIGKILL in the middle of a letter that nobody can ask about."""
    title("Part 2: the next process goes on where the other died, takes the scripted cases too, and is killed in mid-letter")
    await stage.start()
    await stage.send(files, scripted_cases=True)
    await stage.until(lambda: _mid_letter(stage), "a letter is under way")
    await stage.kill()


async def third_service(stage: Stage, files: Sequence[Path]) -> None:
    """Go on again, and finish everything that needs no person."""
    title("Part 3: a third process finishes everything that needs no person; the broken streams go on after what they have shown")
    await stage.start()
    await stage.until_rest(len(files) + len(scripted.CASES))


async def people(stage: Stage) -> None:
    """One approves, one rejects, one may not; and somebody looks after the letters that nobody knows the end of."""
    title("Part 4: people decide, over HTTP, each with a key of their own")
    lead = await stage.person(LEAD, "approver", "operator")
    say(f"  [a key is made for {LEAD}: with it one may approve, reject, and say how a doubtful action ended]")
    waiting = [await lead.approval(row.approval) async for row in lead.approvals()]
    waiting.sort(key=lambda row: stage.watch.journal(row.run_id).name.startswith("scripted:"))
    for row in waiting:
        say(f"  waits: {stage.watch.journal(row.run_id).name:<{telling.NAME}} {shown(row)}")
    if waiting:
        asker = waiting[0].requested_by
        await _try_own(await stage.person(asker, "approver"), waiting[0])
    for row, approve in zip(waiting, (True, False), strict=False):
        say(f"  {LEAD} {'approves' if approve else 'rejects'} {stage.watch.journal(row.run_id).name}")
        before = stage.sequence(row.run_id)
        if approve:
            await lead.approve(row, reason="the pictures show the damage")
        else:
            await lead.reject(row, reason="sent back in use; see the handbook")
        await stage.until_moved(row.run_id, before)
    await _look_after_letters(stage, lead)
    left = len([row async for row in lead.approvals()])
    say(f"  {left} actions still wait for a person; they can wait for a day, as rows in the store, without any process")


async def _try_own(client: AsyncClient, row: ApprovalDetail) -> None:
    """Somebody tries to approve what was asked for on their own behalf, with a key that may approve."""
    try:
        await client.approve(row)
    except ClientError as error:
        say(f"  {row.requested_by}, even with an approver's key, tries to approve the own request: {error.code}")


async def _look_after_letters(stage: Stage, lead: AsyncClient) -> None:
    """Somebody looks at the mail gateway, and says how each doubtful letter ended."""
    sent = {letter.key for letter in stage.shop.letters()}
    for row in [row async for row in lead.runs(status="waiting") if row.code == "effect.unknown"]:
        for call in (await lead.run(row.run_id).show()).unknown_effects:
            done, name = f"{row.run_id}:{call}" in sent, stage.watch.journal(row.run_id).name
            say(f"  {LEAD} looks at the mail gateway for {name}: the letter was {'sent' if done else 'not sent'}")
            before = stage.sequence(row.run_id)
            await lead.resolve(row.run_id, call, done=done, result=f"{LEAD} has looked")
            await stage.until_moved(row.run_id, before)


def closing(stage: Stage) -> bool:
    """The tables, and whether the books agree."""
    followed = stage.watch.journals
    telling.summary(tally(followed), followed)
    compared = compare(stored(stage.store), stage.shop, followed)
    telling.books(compared)
    return not compared.findings


def _mid_refund(stage: Stage) -> bool:
    """The worst moment: the provider has paid a refund, the service has not heard of it, and the model is being asked something."""
    open_now = under_way(stage.watch.journals)
    started = {effect.key for _, effect in open_now if effect.name == "issue_refund"}
    if not started or stage.watch.opened("issue_refund") < REFUNDS_BEFORE_KILLS[0]:
        return False
    return "local" in {effect.name for _, effect in open_now} and not started.isdisjoint(stage.booked())


def _mid_letter(stage: Stage) -> bool:
    """Whether the letter to the silent address was sent unheard of, while a refund and a call of the model are under way, or so long."""
    open_now = under_way(stage.watch.journals)
    sent = {letter.key for letter in stage.shop.letters()}
    opened_at_us = [effect.opened_at_us for run, effect in open_now if run == "scripted:silent_mail" and effect.key in sent]
    if not opened_at_us:
        return False
    enough = stage.watch.opened("issue_refund") >= REFUNDS_BEFORE_KILLS[1]
    busy = enough and {"issue_refund", "local"} <= {effect.name for _, effect in open_now}
    return busy or (clock.now_us() - opened_at_us[0]) / 1e6 > LETTER_S


async def whole(stage: Stage, once: bool) -> int:
    """The whole job. Returns the exit code."""
    files = sorted(tickets.FOLDER.glob("*.txt"))
    opening(stage, files)
    await first_service(stage, files)
    await second_service(stage, files)
    await third_service(stage, files)
    await people(stage)
    return await leave(stage, closing(stage), once)


async def own_ticket(stage: Stage, file: Path, once: bool) -> int:
    """One ticket of somebody's own, the same way, without the accidents."""
    ticket = tickets.read(file)
    title("Your ticket")
    say(f"  From {ticket.sender}: {ticket.text}")
    say(f"  The model: {stage.model}")
    await stage.start()
    await stage.send([file])
    await stage.until_rest(1)
    return await leave(stage, closing(stage), once)


async def leave(stage: Stage, agree: bool, once: bool) -> int:
    """End, or stay up until Ctrl-C so that people can go on deciding."""
    if not once:
        told = stage.interrupted()
        doors.show(stage)
        await stage.until_told(told)
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


def _port() -> int:
    """Where to listen: ``PORT``, or 8321."""
    said = os.environ.get("PORT") or str(PORT)
    if not said.isascii() or not said.isdigit() or int(said) > 65_535:
        raise UsageError(
            "demo.port", f"PORT={said} is no port; give a number from 1024 to 65535, for example: make demo PORT=8322"
        )
    return int(said)


def main(arguments: Sequence[str]) -> int:
    """Parse, make the stage, perform."""
    options = _parser().parse_args(arguments)
    own = options.ticket is not None or options.file is not None
    folder = (options.folder or (FOLDER / "own-ticket" if own else FOLDER)).resolve()
    once = bool(os.environ.get("ONCE"))
    try:
        stage = Stage.prepared(folder, _port(), stand_in=options.stand_in)
        file = _own_file(options, stage.shop)
        with asyncio.Runner() as runner:
            if file is None:
                return runner.run(stage.performed(lambda: whole(stage, once)))
            return runner.run(stage.performed(lambda: own_ticket(stage, file, once)))
    except (QuarterdeckError, ClientError) as error:
        say(str(error))
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
