"""Orders given to a store as a visitor. What an order is, :mod:`quarterdeck.app.orders` says; each is durable when it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

from quarterdeck.app.admission import admission_of
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.letters import Letters
from quarterdeck.app.orders import Orders
from quarterdeck.app.switching import Switched
from quarterdeck.app.wiring import budget_version, check_deck
from quarterdeck.cli.places.verbs import SwitchOrder
from quarterdeck.cli.storefile import Where, ask_store, incarnation_of, reading
from quarterdeck.core.canonical import Json
from quarterdeck.core.commit import Applied, Op, Refused
from quarterdeck.core.contract import Limits
from quarterdeck.core.overrides import Change
from quarterdeck.core.vocabulary import CancelMode
from quarterdeck.ports.store import Insights

T = TypeVar("T")


def cancel(path: Where, run_id: str, *, by: str, reason: str, mode: CancelMode = CancelMode.COMPENSATE) -> None:
    """Stop a run; see :meth:`Orders.cancel`."""
    _give(path, lambda orders: orders.cancel(run_id, by=by, reason=reason, mode=mode))


def interrupt(path: Where, run_id: str, payload: Json, *, by: str, trusted: bool, token: str | None) -> None:
    """Tell a run something; see :meth:`Orders.interrupt`."""
    name = token or SystemEntropy().token(8).hex()
    _give(path, lambda orders: orders.interrupt(run_id, payload, by=by, trusted=trusted, token=name))


def escalate(path: Where, run_id: str, owners: Sequence[str], *, by: str, reason: str) -> str:
    """Make a run the concern of its next owner; see :meth:`Orders.escalate`."""
    return _give(path, lambda orders: orders.escalate(run_id, owners, by=by, reason=reason))


def signal(path: Where, run_id: str, name: str, payload: Json, *, by: str, token: str) -> None:
    """Send a run a message; see :meth:`Orders.signal`."""
    _give(path, lambda orders: orders.signal(run_id, name, payload, by=by, token=token))


def pause(path: Where, run_id: str, *, by: str, reason: str, token: str) -> None:
    """Let a run begin nothing new; see :meth:`Orders.pause`."""
    _give(path, lambda orders: orders.pause(run_id, by=by, reason=reason, token=token))


def resume(path: Where, run_id: str, *, by: str, reason: str, done: bool, token: str) -> None:
    """Let a run go on; see :meth:`Orders.resume`."""
    _give(path, lambda orders: orders.resume(run_id, by=by, reason=reason, done=done, token=token))


def decide(path: Where, approval: str, *, approve: bool, by: str, reason: str, digest: str | None) -> None:
    """Answer one approval; see :meth:`Orders.decide`."""
    _give(path, lambda orders: orders.decide(approval, approve=approve, by=by, reason=reason, digest=digest))


def edit(path: Where, approval: str, arguments: Json, *, by: str, reason: str, digest: str | None) -> None:
    """Want other arguments; see :meth:`Orders.edit`."""
    _give(path, lambda orders: orders.edit(approval, arguments, by=by, reason=reason, digest=digest))


def respond(path: Where, approval: str, text: str, *, by: str, digest: str | None) -> None:
    """Say something instead of the action; see :meth:`Orders.respond`."""
    _give(path, lambda orders: orders.respond(approval, text, by=by, digest=digest))


def mark(path: Where, run_id: str, call: str, *, by: str, reason: str, wrong: bool) -> None:
    """Say of a decision that it was wrong; see :meth:`Orders.mark`."""
    _give(path, lambda orders: orders.mark(run_id, call, by=by, reason=reason, wrong=wrong))


def resolve(
    path: Where, run_id: str, call: str, *, done: bool, by: str, result: Json, retry: bool = False, reason: str = ""
) -> None:
    """Say how an unknown effect ended; see :meth:`Orders.resolve`."""
    _give(path, lambda orders: orders.resolve(run_id, call, done=done, by=by, result=result, retry=retry, reason=reason))


def switch(path: Where, order: SwitchOrder, *, by: str) -> Switched:
    """Set or clear a switch; see :meth:`Orders.switch`."""
    expires_at_us = None
    if order.on and order.expires_in_s is not None:
        expires_at_us = SystemClock().now_us() + order.expires_in_s * 1_000_000
    return _give(
        path,
        lambda orders: orders.switch(
            order.name,
            on=order.on,
            by=by,
            reason=order.reason,
            tenant=order.tenant,
            route=order.route,
            expires_at_us=expires_at_us,
            expected=order.expected,
        ),
    )


def change_dependency(path: Where, name: str, change: Change | None, *, for_s: float, by: str, reason: str) -> None:
    """Change a dependency's policy for a while; see :meth:`Orders.change_dependency`."""
    _give(path, lambda orders: orders.change_dependency(name, change, for_s=for_s, by=by, reason=reason))


def raise_budget(path: Where, run_id: str, limits: Limits, *, by: str, reason: str, token: str | None) -> None:
    """Set limits of a run anew; see :meth:`Orders.raise_budget`."""
    name = token or SystemEntropy().token(8).hex()
    _give(path, lambda orders: orders.raise_budget(run_id, limits, by=by, reason=reason, token=name))


def raise_account(path: Where, account: str, limits: Limits, *, by: str, reason: str) -> int:
    """Set limits of a shared account anew; see :meth:`Orders.raise_account`."""
    token = SystemEntropy().token(8).hex()
    return _give(path, lambda orders: orders.raise_account(account, limits, token=token, by=by, reason=reason))


def erase(path: Where, run_id: str, *, by: str = "", reason: str = "") -> None:
    """Destroy the contents of a run that has ended; see :meth:`Orders.erase`."""
    _give(path, lambda orders: orders.erase(run_id, by=by, reason=reason))


def erase_all(
    path: Where, *, by: str, reason: str, user: str | None, tenant: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Destroy the contents of every ended run of a user or a tenant; see :meth:`Orders.erase_all`."""
    done: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    async def give(orders: Orders) -> None:
        done.append(await orders.erase_all(by=by, reason=reason, user=user, tenant=tenant))

    _give(path, give)
    return done[0]


def decide_post(path: Where, message: str, action: str, *, by: str, reason: str) -> None:
    """Say what becomes of a dead message; see :meth:`Orders.decide_post`."""
    _give(path, lambda orders: orders.decide_post(message, action, by=by, reason=reason))


def drop(path: Where, run_id: str, *, by: str, reason: str) -> None:
    """Let a dead letter go; see :meth:`Letters.drop`."""
    with reading(path) as insights:
        asyncio.run(Letters(visiting(path), insights, SystemClock()).drop(run_id, by=by, reason=reason))


def requeue(path: Where, deck: Quarterdeck, run_id: str, *, by: str, reason: str) -> str:
    """Ask for a failed run once more, under the policy set in force; the new run's id. See :meth:`Letters.requeue`."""
    clock = SystemClock()
    check_deck(deck)
    with reading(path) as insights:
        letters = Letters(visiting(path), insights, clock)
        versions = (policy_in_force(insights), budget_version(deck))
        asked = letters.requeue(
            run_id, admission_of(deck, clock, SystemEntropy()), versions, incarnation_of(path), by=by, reason=reason
        )
        return asyncio.run(asked)[0]


def policy_in_force(insights: Insights) -> str:
    """The version of the policy set, as much of it as the gate records in its decisions."""
    return next((row.value for row in insights.facts() if row.name == "policy"), "")[:16]


def visiting(path: Where) -> Callable[[Op], Coroutine[None, None, Applied | Refused]]:
    """What :class:`Orders` apply operations through when another process owns the store, or nobody does."""

    async def apply(op: Op) -> Applied | Refused:
        return ask_store(path, op)

    return apply


def _give(path: Where, order: Callable[[Orders], Coroutine[None, None, T]]) -> T:
    with reading(path) as insights:
        return asyncio.run(order(Orders(visiting(path), insights, SystemClock())))
