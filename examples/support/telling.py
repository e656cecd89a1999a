"""How the demo speaks: one plain line per thing that happened, and the tables at the end."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence, Set

from examples.support.journals import Journal, Seen
from examples.support.reckoning import Books, Spent, Tally
from quarterdeck import QuarterdeckError
from quarterdeck.core import events as ev
from quarterdeck.core.canonical import parse
from quarterdeck.core.state import OpenEffect
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling

WIDTH = 128
NAME = 30
INDENT = 18


def say(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def title(text: str) -> None:
    """The beginning of a part."""
    say(f"\n── {text} " + "─" * max(2, WIDTH - len(text) - 4))


def line(seen: Seen) -> str | None:
    """One event in plain words; ``None`` for what a newcomer need not see."""
    event, word, about = seen.event, "", ""
    if isinstance(event, ev.GateDecided):
        word, about = _decision(event, seen)
    elif isinstance(event, ev.EffectReopened):
        word, about = "again", f"{seen.tool}: killed before its receipt; once more, under the same idempotency key"
    elif isinstance(event, ev.ToolClosed) and event.status is ReceiptStatus.UNKNOWN:
        about = f"{seen.tool}: nobody knows whether it happened ({event.code}); a person is asked, nothing is repeated"
    elif isinstance(event, ev.ToolClosed) and event.status is ReceiptStatus.FAILED:
        about = f"{seen.tool}: the shop itself says no ({event.code})"
    elif isinstance(event, ev.ModelClosed) and event.status is not ReceiptStatus.SUCCEEDED:
        word, about = "again", f"the model is asked once more ({event.code})"
    elif isinstance(event, ev.ApprovalDecided):
        about = f"{event.outcome} by {event.by}" + (f": {event.reason}" if event.reason else "")
    elif isinstance(event, ev.EffectResolved):
        about = f"{seen.tool}: {event.by} says that it {event.status}"
    elif isinstance(event, ev.RunFinished):
        word = "end"
        about = f"{event.status}, {event.reason}" + (f" ({event.code})" if event.code != event.reason else "")
    return f"  {seen.run:<{NAME}} {word:<8} {about}" if about else None


def _decision(event: ev.GateDecided, seen: Seen) -> tuple[str, str]:
    """What the gate said, to which call; an allowed model call or reply is not worth a line."""
    reasons = f"   {', '.join(event.reasons)}" if event.reasons else ""
    if event.proposal is ProposalKind.TOOL:
        word = "allow" if event.ruling is Ruling.ALLOW else event.ruling.upper()
        return word, call(event.name, seen.arguments) + reasons
    if event.ruling is Ruling.ALLOW:
        return "", ""
    return event.ruling.upper(), f"{event.proposal}{reasons}"


def call(tool: str, arguments: str) -> str:
    """A call as a person reads it; arguments that are no JSON object are shown as they came.

    >>> call("issue_refund", '{"order_id": "A1064", "amount_usd": 14}'), call("issue_refund", '{"order_id": "A10')
    ('issue_refund(amount_usd 14, order_id A1064)', 'issue_refund {"order_id": "A10')
    """
    try:
        values = parse(arguments)
    except QuarterdeckError:
        values = None
    if not isinstance(values, dict):
        return f"{tool} {_short(arguments)}"
    return f"{tool}({', '.join(f'{name} {_short(str(value))}' for name, value in sorted(values.items()))})"


def _short(text: str, limit: int = 48) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _counted(counter: Counter[str]) -> str:
    """The commonest first, on as many lines as it takes."""
    text = ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"
    return textwrap.fill(text, WIDTH - INDENT, break_on_hyphens=False).replace("\n", "\n" + " " * INDENT)


def _used(name: str, spent: Spent, model_usd: str) -> str:
    money = f"{spent.cost_microusd / 1e6:.3f} $"
    used = f"{spent.model_calls:>4} model calls {spent.tool_calls:>4} tool calls {spent.tokens:>8,} tokens"
    return f"  {name:<16} {spent.runs:>3} runs {used}   {money} ({model_usd}; the rest is what tools charge)"


def summary(found: Tally, journals: Sequence[Journal]) -> None:
    """What was decided, what was spent, how each run stands."""
    title("What was decided")
    say(f"  allowed  {sum(found.allowed.values()):>4}   {_counted(found.allowed)}")
    for name, counter in (("denied", found.denied), ("asked", found.asked), ("degraded", found.degraded)):
        say(f"  {name:<8} {sum(counter.values()):>4}   {_counted(counter)}")
    title("What was spent")
    say(_used("tickets", found.local, "0 $ for the model"))
    if found.scripted.runs:
        say(_used("scripted cases", found.scripted, "0 $ for the script"))
    title("How each run stands")
    say(f"  {'ticket or case':<{NAME}} {'status':<10} {'stop reason':<15} {'code':<30} effects")
    for journal in journals:
        state = journal.state
        counts = {"done": state.effects.succeeded, "failed": state.effects.failed, "unknown": state.effects.unknown}
        shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
        say(f"  {journal.name:<{NAME}} {state.status:<10} {state.reason or '':<15} {state.code:<30} {shown}")
    say(f"  together: {_counted(Counter(str(journal.state.status) for journal in journals))}")


def books(compared: Books) -> None:
    """The check at the shop's own ledger."""
    title("Did anything happen twice, or get lost? The shop's own books against the journals' file")
    say(f"  refunds that the shop's ledger has:            {compared.in_ledger:>5}   (one line per idempotency key)")
    say(f"  succeeded refund receipts in the journals:     {compared.receipts:>5}   (joined by idempotency key)")
    say(f"  refunds that were asked for again after a kill:{compared.asked_again:>5}   (same key, so the provider paid once)")
    say(f"  letters that the mail gateway took:            {compared.letters:>5}   (receipts: {compared.letter_receipts})")
    say(f"  events in the journals:                        {compared.events:>5}")
    say(f"  events that came over the HTTP streams:        {compared.events_followed:>5}   (compared one by one, in order)")
    for finding in compared.findings:
        say(f"  WRONG: {finding}")
    say("  everything happened once, and was seen once" if not compared.findings else "  THE BOOKS DO NOT AGREE")


def in_flight(effects: Sequence[tuple[str, OpenEffect]], booked: Set[str]) -> None:
    """What was under way, at most a dozen of it; ``booked`` are the keys that the shop has in its books."""
    for name, effect in effects[:12]:
        done = "   (the shop has done it; only the receipt is missing)" if effect.key in booked else ""
        say(f"    {name:<{NAME}} {effect.call:<6} {'a call of the model ' * effect.model}{effect.name}{done}")
    if len(effects) > 12:
        say(f"    … and {len(effects) - 12} more")
    if not effects:
        say("    nothing")
