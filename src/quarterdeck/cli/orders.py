"""Orders given to a store as a visitor. What an order is, :mod:`quarterdeck.app.orders` says; each is durable when it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import Orders
from quarterdeck.cli.storefile import ask_store, reading
from quarterdeck.core.canonical import Json
from quarterdeck.core.commit import Applied, Op, Refused


def cancel(path: Path, run_id: str, *, by: str, reason: str) -> None:
    """Stop a run; see :meth:`Orders.cancel`."""
    _give(path, lambda orders: orders.cancel(run_id, by=by, reason=reason))


def decide(path: Path, approval: str, *, approve: bool, by: str, reason: str, digest: str | None) -> None:
    """Answer one approval; see :meth:`Orders.decide`."""
    _give(path, lambda orders: orders.decide(approval, approve=approve, by=by, reason=reason, digest=digest))


def resolve(path: Path, run_id: str, call: str, *, done: bool, by: str, result: Json) -> None:
    """Say how an unknown effect ended; see :meth:`Orders.resolve`."""
    _give(path, lambda orders: orders.resolve(run_id, call, done=done, by=by, result=result))


def switch(path: Path, name: str, *, on: bool) -> None:
    """Set or clear a switch; see :meth:`Orders.switch`."""
    _give(path, lambda orders: orders.switch(name, on=on))


def erase(path: Path, run_id: str) -> None:
    """Destroy the contents of a run that has ended; see :meth:`Orders.erase`."""
    _give(path, lambda orders: orders.erase(run_id))


def visiting(path: Path) -> Callable[[Op], Coroutine[None, None, Applied | Refused]]:
    """What :class:`Orders` apply operations through when another process owns the store, or nobody does."""

    async def apply(op: Op) -> Applied | Refused:
        return ask_store(path, op)

    return apply


def _give(path: Path, order: Callable[[Orders], Coroutine[None, None, object]]) -> None:
    with reading(path) as insights:
        asyncio.run(order(Orders(visiting(path), insights, SystemClock())))
