"""The gate's decision time with 1, 50 and 500 policies in force, memoised and not. usage: python -m benchmarks.gate"""

from __future__ import annotations

import statistics
import time

import msgspec

from quarterdeck import Quarterdeck
from quarterdeck.app.admission import Admission
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.wiring import accounts_of, policy_of
from quarterdeck.core.contract import Envelope
from quarterdeck.core.events import ModelClosed, ModelOpened, Planned, RunAdmitted, RunStarted
from quarterdeck.core.fold import fold, start
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import ReceiptStatus
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
    """All six, as one JSON line."""
    figures = {}
    for policies in (1, 50, 500):
        for distinct in (False, True):
            name = f"{policies}_{'distinct' if distinct else 'remembered'}"
            figures[name] = {key: round(value, 1) for key, value in measure(policies, distinct=distinct).items()}
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
