"""The gate's decision time with 1, 50 and 500 policies in force, memoised and not. usage: python -m benchmarks.gate"""

from __future__ import annotations

import statistics
import time
from collections import Counter

import msgspec

from quarterdeck import Quarterdeck
from quarterdeck.app.admission import Admission
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.wiring import accounts_of, policy_of
from quarterdeck.core.contract import Envelope
from quarterdeck.core.events import ModelClosed, ModelOpened, Planned, RunAdmitted, RunStarted
from quarterdeck.core.fold import fold, start
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.origins import Origins, Source
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus
from quarterdeck.gate.gate import Gate
from quarterdeck.gate.proposals import Catalogue
from quarterdeck.testing import ScriptedModel

TOOLS = 20
DECISIONS = 3_000


def deck_of(policies: int) -> Quarterdeck:
    """A deck of twenty tools with so many policies, spread over the tools, one of them for every tool."""
    deck = Quarterdeck("gate")
    for number in range(TOOLS):

        async def act(amount_cents: int, note: str) -> str:
            """Do it."""
            return note

        deck.tool(effect="write", idempotent=True, name=f"act_{number}")(act)
    deck.model("scripted", ScriptedModel(["done"]))
    deck.agent("agent", model="scripted", tools=[f"act_{number}" for number in range(TOOLS)])
    rules = [
        f'@reason("amount.too_large_{number}") forbid(principal, action in Action::"tool", resource == Tool::"act_{number % TOOLS}") '
        f"when {{ context.args.amount_cents > {1_000_000 + number} }};"
        for number in range(policies - 1)
    ]
    deck.policy("permit(principal, action, resource);\n" + "\n".join(rules))
    return deck


def labelled_deck(policies: int) -> Quarterdeck:
    """The same with tools that reach outside, one that reads what others have written, and a permit that looks at labels."""
    deck = Quarterdeck("labelled")

    @deck.tool(effect="read", source="untrusted", sensitivity="sensitive")
    async def read_mail() -> str:
        """Read."""
        return ""

    for number in range(TOOLS):

        async def send(to: str, amount_cents: int, note: str) -> str:
            """Send it."""
            return note

        deck.tool(effect="external", idempotent=True, name=f"act_{number}", sensitivity="sensitive")(send)
    deck.model("scripted", ScriptedModel(["done"]))
    deck.agent("agent", model="scripted", tools=["read_mail", *[f"act_{number}" for number in range(TOOLS)]])
    rules = [
        f'@reason("amount.too_large_{number}") forbid(principal, action in Action::"tool", resource == Tool::"act_{number % TOOLS}") '
        f"when {{ context.labels.sensitive && context.args.amount_cents > {1_000_000 + number} }};"
        for number in range(policies - 1)
    ]
    deck.policy("permit(principal, action, resource);\n" + "\n".join(rules))
    return deck


ASKED = "Please send the summary of order A-1 to ann@example.com and refund up to 3500 cents; call her back at noon."
MAIL = "Dear desk, the parcel for order A-1 was never delivered, please write to bob@example.net about invoice 4711. " * 80
"""What the caller asked for, and some 9 KB that somebody else wrote."""


def labelled(policies: int) -> dict[str, float]:
    """Microseconds per decision of a run that has read untrusted and sensitive content: every other call has a value that the caller
    gave and is allowed, every other one a value of the mail, and a person is asked. No two calls have the same arguments.
    """
    deck = labelled_deck(policies)
    clock, entropy = SystemClock(), SystemEntropy()
    specs = {name: tool.spec for name, tool in deck.tools.items()}
    admission = Admission(deck.name, deck.routes, deck.agents, specs, clock, entropy)
    catalogue = Catalogue(deck.tools)
    gate = Gate(catalogue, policy_of(deck), accounts_of(deck, clock.now_us), clock.now_us)
    state = state_of(deck, admission, TOOLS)
    state.labels = Labels(Integrity.UNTRUSTED, Confidentiality.SENSITIVE)
    origins = Origins()
    origins.ask(ASKED)
    source = Source("read_mail", EffectClass.READ, reaches=False)
    origins.received(ReceiptStatus.SUCCEEDED, state.labels, msgspec.json.encode(MAIL), "{}", source)
    standing = gate.standing(state.contract)
    times, rulings = [], Counter[str]()
    for number in range(DECISIONS + 200):
        ours = number % 2
        to = "ann@example.com" if ours else "bob@example.net"
        note = "the summary of order A-1" if ours else MAIL[number % 700 : number % 700 + 900]
        raw = msgspec.json.encode({"to": to, "amount_cents": 3_500, "note": note + " " * (number % 90)}).decode()
        began = time.perf_counter()
        proposal = catalogue.propose(state.contract, f"t0.{number % TOOLS}", f"act_{number % TOOLS}", raw, 1)
        answer = gate.judge(proposal, state, standing, origins=origins)
        times.append(time.perf_counter() - began)
        rulings[answer.decision.ruling] += 1
    if set(rulings) != {"allow", "ask"}:
        raise SystemExit(f"unexpected decisions {rulings}")
    measured = sorted(times[200:])
    return {"p50_us": statistics.median(measured) * 1e6, "p99_us": measured[int(len(measured) * 0.99)] * 1e6}


def state_of(deck: Quarterdeck, admission: Admission, calls: int) -> RunState:
    """A run that has just been answered by its model with ``calls`` planned calls."""
    contract, _ = admission.contract(Envelope("agent", "hello"), "v", "b")
    planned = tuple(Planned(f"t0.{number}", f"c{number}", f"act_{number % TOOLS}") for number in range(calls))
    state = start(RunAdmitted(1, contract))
    fold(state, RunStarted(2, "w", 1))
    fold(state, ModelOpened(3, "m0", "scripted", "k", 9, 800))
    return fold(state, ModelClosed(4, "m0", ReceiptStatus.SUCCEEDED, calls=planned))


def measure(policies: int, *, distinct: bool) -> dict[str, float]:
    """Microseconds per decision, from raw arguments to the answer: parse, canonical form, schema, digest, rules, policy."""
    deck = deck_of(policies)
    clock, entropy = SystemClock(), SystemEntropy()
    admission = Admission(
        deck.name, deck.routes, deck.agents, {name: tool.spec for name, tool in deck.tools.items()}, clock, entropy
    )
    catalogue = Catalogue(deck.tools)
    gate = Gate(catalogue, policy_of(deck), accounts_of(deck, clock.now_us), clock.now_us)
    state = state_of(deck, admission, TOOLS)
    standing = gate.standing(state.contract)
    times = []
    for number in range(DECISIONS + 200):
        call = f"t0.{number % TOOLS}"
        amount = number if distinct else 7
        began = time.perf_counter()
        proposal = catalogue.propose(state.contract, call, f"act_{number % TOOLS}", f'{{"amount_cents":{amount},"note":"n"}}', 1)
        answer = gate.judge(proposal, state, standing)
        times.append(time.perf_counter() - began)
        if answer.decision.ruling != "allow":
            raise SystemExit(f"unexpected decision {answer}")
    measured = sorted(times[200:])
    return {"p50_us": statistics.median(measured) * 1e6, "p99_us": measured[int(len(measured) * 0.99)] * 1e6}


def main() -> None:
    """All nine, as one JSON line."""
    figures = {}
    for policies in (1, 50, 500):
        for distinct in (False, True):
            name = f"{policies}_{'distinct' if distinct else 'remembered'}"
            figures[name] = {key: round(value, 1) for key, value in measure(policies, distinct=distinct).items()}
        figures[f"labels_{policies}"] = {key: round(value, 1) for key, value in labelled(policies).items()}
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
