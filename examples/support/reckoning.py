"""What it all came to: counted from the journals, and checked against the shop's own books.

The check does not trust the runtime. It takes the refund ledger and the outbox as they lie in the shop's database, and the receipts
as they lie in the journals' file, and joins them by idempotency key: what is in one and not in the other is a finding, and so is a
key that appears twice. It also holds what came over the event streams against the file, event by event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from examples.support.journals import AT_REST, Journal
from examples.support.scripted import PREFIX
from examples.support.shop import Shop
from quarterdeck.core import events as ev
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling


@dataclass(slots=True)
class Spent:
    """What some runs have used."""

    runs: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost_microusd: int = 0


@dataclass(slots=True)
class Tally:
    """Decisions by ruling and reason code, and spending, apart for tickets and scripted cases."""

    allowed: Counter[str] = field(default_factory=Counter)
    denied: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    local: Spent = field(default_factory=Spent)
    scripted: Spent = field(default_factory=Spent)


def tally(journals: Iterable[Journal]) -> Tally:
    """Count everything that was decided and spent."""
    found = Tally()
    for journal in journals:
        for event in journal.events:
            if isinstance(event, ev.GateDecided):
                _count(found, event)
        scripted = journal.state.contract.route.startswith(PREFIX)
        spent, used = journal.state.spent, found.scripted if scripted else found.local
        used.runs += 1
        used.model_calls += spent.get("model_calls", 0)
        used.tool_calls += spent.get("tool_calls", 0)
        used.tokens += spent.get("tokens", 0)
        used.cost_microusd += spent.get("cost_microusd", 0)
    return found


def _count(found: Tally, event: ev.GateDecided) -> None:
    if event.ruling is Ruling.ALLOW:
        found.allowed[event.name if event.proposal is ProposalKind.TOOL else f"({event.proposal})"] += 1
    elif event.ruling is Ruling.DENY:
        found.denied.update(event.reasons)
    elif event.ruling is Ruling.ASK:
        found.asked.update(event.reasons)
    elif event.ruling is Ruling.DEGRADE:
        found.degraded.update(event.reasons)


@dataclass(frozen=True, slots=True)
class Books:
    """Both sides of the comparison, and what is wrong with them; no findings is the only good answer."""

    receipts: int
    in_ledger: int
    asked_again: int
    letters: int
    letter_receipts: int
    events: int
    events_followed: int
    findings: tuple[str, ...]


def compare(journals: Sequence[Journal], shop: Shop, followed: Sequence[Journal]) -> Books:
    """Join the receipts in ``journals``, from the file, with the shop's books by idempotency key; ``followed`` came over HTTP."""
    refunds, letters, doubtful = [], [], set()
    findings = []
    for journal in journals:
        if journal.state.status not in AT_REST:
            findings.append(f"{journal.name} is still {journal.state.status}")
        succeeded, unknown = _receipts(journal.events)
        refunds += [key for tool, key in succeeded if tool == "issue_refund"]
        letters += [key for tool, key in succeeded if tool == "send_email"]
        doubtful.update(unknown)
    ledger, outbox = shop.refunds(), shop.letters()
    findings += _differences("refund", refunds, [line.key for line in ledger], doubtful)
    findings += _differences("letter", letters, [letter.key for letter in outbox], doubtful)
    findings += _unlike(journals, followed)
    again = sum(line.asked > 1 for line in ledger)
    counts = [sum(len(journal.events) for journal in side) for side in (journals, followed)]
    return Books(len(refunds), len(ledger), again, len(outbox), len(letters), *counts, tuple(findings))


def _unlike(journals: Iterable[Journal], followed: Iterable[Journal]) -> list[str]:
    """Every run whose stream did not give exactly the events of its journal, once each and in order."""
    streams = {journal.run_id: journal.events for journal in followed}
    return [
        f"the stream of {journal.name} differs from its journal"
        for journal in journals
        if streams.get(journal.run_id) != journal.events
    ]


def _receipts(journal: Iterable[ev.Event]) -> tuple[list[tuple[str, str]], list[str]]:
    """The tool and idempotency key of every effect that succeeded, and the keys of those that nobody knows the end of."""
    opened: dict[str, tuple[str, str]] = {}
    ended: dict[str, ReceiptStatus] = {}
    for event in journal:
        if isinstance(event, ev.ToolOpened):
            opened[event.call] = (event.tool, event.key)
        elif isinstance(event, (ev.ToolClosed, ev.EffectResolved)):
            ended[event.call] = event.status
    succeeded = [opened[call] for call, status in ended.items() if status is ReceiptStatus.SUCCEEDED]
    return succeeded, [opened[call][1] for call, status in ended.items() if status is ReceiptStatus.UNKNOWN]


def _differences(what: str, receipts: list[str], booked: list[str], doubtful: set[str]) -> list[str]:
    twice = [f"{what} {key} is booked {count} times" for key, count in Counter(booked).items() if count > 1]
    twice += [f"{what} {key} has {count} receipts" for key, count in Counter(receipts).items() if count > 1]
    missing = [f"{what} {key} has a receipt, but the shop has not heard of it" for key in sorted(set(receipts) - set(booked))]
    unreceipted = set(booked) - set(receipts) - doubtful
    return twice + missing + [f"{what} {key} is booked, but no journal has a receipt of it" for key in sorted(unreceipted)]
