"""Orders given to a store as a visitor, and what became of them. What an order is, :mod:`quarterdeck.app.orders` says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import Orders
from quarterdeck.app.views import row_of
from quarterdeck.cli.storefile import ask_store, reading
from quarterdeck.core.canonical import Json
from quarterdeck.core.commit import Applied, Op, Refused
from quarterdeck.store.sqlite.opening import owner_of


class Ordered(msgspec.Struct, frozen=True):
    """An order that is durable, and the status of its run then. ``owner`` is the process that acts on it; without one the order
    waits for the next runtime."""

    run_id: str
    done: str
    owner: int | None
    status: str


def cancel(path: Path, run_id: str, *, by: str, reason: str) -> Ordered:
    """Stop a run; see :meth:`Orders.cancel`."""

    async def order(orders: Orders) -> str:
        await orders.cancel(run_id, by=by, reason=reason)
        return run_id

    return _ordered(path, "cancel", order)


def decide(path: Path, approval: str, *, approve: bool, by: str, reason: str, digest: str | None) -> Ordered:
    """Answer one approval; see :meth:`Orders.decide`."""

    async def order(orders: Orders) -> str:
        return (await orders.decide(approval, approve=approve, by=by, reason=reason, digest=digest)).run_id

    return _ordered(path, "approved" if approve else "rejected", order)


def resolve(path: Path, run_id: str, call: str, *, done: bool, by: str, result: Json) -> Ordered:
    """Say how an unknown effect ended; see :meth:`Orders.resolve`."""

    async def order(orders: Orders) -> str:
        await orders.resolve(run_id, call, done=done, by=by, result=result)
        return run_id

    return _ordered(path, "succeeded" if done else "failed", order)


def erase(path: Path, run_id: str) -> Ordered:
    """Destroy the contents of a run that has ended; see :meth:`Orders.erase`."""

    async def order(orders: Orders) -> str:
        await orders.erase(run_id)
        return run_id

    return _ordered(path, "erased", order)


def visiting(path: Path) -> Callable[[Op], Coroutine[None, None, Applied | Refused]]:
    """What :class:`Orders` apply operations through when another process owns the store, or nobody does."""

    async def apply(op: Op) -> Applied | Refused:
        return ask_store(path, op)

    return apply


def _ordered(path: Path, done: str, order: Callable[[Orders], Coroutine[None, None, str]]) -> Ordered:
    """Give one order; it names the run that it is about."""
    with reading(path) as insights:
        run_id = asyncio.run(order(Orders(visiting(path), insights, SystemClock())))
        return Ordered(run_id, done, owner_of(path), row_of(insights, run_id).status)
