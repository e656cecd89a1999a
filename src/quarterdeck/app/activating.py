"""Making a deck's rules the ones in force in a store: its policies, prices and budgets, and the name of its release.

The owner of a file does so when it starts. Where several share a store, whoever starts with rules that were never in force there declares
them, and the others notice; whoever starts with rules that were replaced since takes nothing back, and drives nothing until somebody puts
them in force again (:func:`put_in_force`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.orders import Apply
from quarterdeck.app.wiring import policy_of, rules_of
from quarterdeck.core import rules
from quarterdeck.core.audit import Audit
from quarterdeck.core.budget import SHARED
from quarterdeck.core.commit import Applied, SetAccount, SetFact
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.windows import is_period
from quarterdeck.ports.store import FactRow, Insights

ATTEMPTS = 20
"""How often a declaration is made again because somebody else declared meanwhile."""


def release_of(deck: Quarterdeck) -> str:
    """A content hash of the deck's programs."""
    return hashlib.sha256(repr(sorted(deck.agents.items())).encode()).hexdigest()[:16]


async def activate(
    deck: Quarterdeck, apply: Apply, insights: Insights, now_us: int, version: str, *, alone: bool, judges: bool
) -> bool:
    """Declare what this deck has, as far as that is its to say; whether its rules are in force now.

    ``alone``: nobody else can work on this store. ``judges``: it drives runs; who only asks for some declares no more than the first rules.
    """
    mine = rules_of(deck)
    rows = _facts(insights)
    known = _rules(rows)
    if rules.against(known, mine) and not alone and (not judges or rules.replaced(known, mine)):
        return False
    await _declare(apply, insights, mine, now_us)
    for name, value in (("policy", version), ("release", release_of(deck))):
        before = rows.get(name)
        if before is None or before.value != value:
            told = Audit(f"{name}.activated", f"deck:{deck.name}", value, now_us)
            await apply(SetFact(name, value, now_us, audit=told))
    await _limit(deck, apply, insights, now_us)
    return True


async def put_in_force(deck: Quarterdeck, apply: Apply, insights: Insights, now_us: int, by: str) -> str:
    """Declare this deck's rules, whatever was declared since; the version of its policy set."""
    version = policy_of(deck).version
    await _declare(apply, insights, rules_of(deck), now_us)
    await apply(SetFact("policy", version, now_us, audit=Audit("policy.activated", by, version, now_us)))
    await _limit(deck, apply, insights, now_us)
    return version


async def _declare(apply: Apply, insights: Insights, mine: Mapping[str, str], now_us: int) -> None:
    """Add to what is declared; of two who do so at once the later one sees the other's."""
    for _ in range(ATTEMPTS):
        rows = _facts(insights)
        known = _rules(rows)
        value = rules.written(rules.declared(known, mine))
        row = rows.get(rules.FACT)
        if row is not None and row.value == value:
            return
        if isinstance(await apply(SetFact(rules.FACT, value, now_us, row.version if row is not None else 0)), Applied):
            return
    raise Unavailable("policy.contended", "others declare policies, prices and budgets at once, again and again; try again")


def _facts(insights: Insights) -> dict[str, FactRow]:
    return {row.name: row for row in insights.facts()}


def _rules(rows: Mapping[str, FactRow]) -> rules.Rules:
    return rules.stored(rows[rules.FACT].value) if rules.FACT in rows else rules.Rules()


async def _limit(deck: Quarterdeck, apply: Apply, insights: Insights, now_us: int) -> None:
    """Set the limits of the shared accounts that the deck names, where they are others, and tell it."""
    limited = {(row.account, row.dimension): row.limit for row in insights.accounts()}
    known = sorted({name for name, _ in limited if name.startswith("tenant:") and not is_period(name)})
    wanted = {account: limits for account, limits in deck.accounts.items() if not account.endswith("*")}
    everyone = deck.accounts.get("tenant:*")
    if everyone is not None:
        wanted.update({account: everyone for account in known if account not in deck.accounts})
    for account, limits in wanted.items():
        said = {str(dimension): limits.limit(dimension) for dimension in SHARED}
        if any(limited.get((account, dimension), -1) != limit for dimension, limit in said.items()):
            detail = msgspec.json.encode(said).decode()
            told = Audit("account.limited", f"deck:{deck.name}", account, now_us, detail=detail)
            await apply(SetAccount(account, limits, told))
