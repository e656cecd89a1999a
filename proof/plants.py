"""Bugs on purpose, in the engine: each switches off one mechanism that a crash suite relies on, and that suite has to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from quarterdeck.core import budget
from quarterdeck.core import events as ev
from quarterdeck.core.state import OpenEffect
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.engine import recovery
from quarterdeck.engine.held import Held
from quarterdeck.engine.performing import Receipt
from quarterdeck.engine.sequencer import LateReceipt, Sequencer
from quarterdeck.ports.tools import ToolContext
from quarterdeck.testing.patching import Plant, patched


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug, and the suite that has to notice it."""

    name: str
    suite: str
    planted: Plant


_close = recovery._close
_unknown = recovery.unknown
_context = Held.context


async def _repeats(held: Held, effect: OpenEffect) -> None:
    tool = None if effect.model else recovery._tool(held.services.gate.catalogue, effect.name)
    if tool is None:
        await _close(held, effect)
    else:
        await recovery._again(held, effect, tool, doubted=True)


def _keyed_by_epoch(self: Held, call: str, key: str) -> ToolContext:
    return _context(self, call, f"{key}:{self.sequencer.epoch}")


def _failed(*arguments: object) -> Receipt:
    closed, shown = _unknown(*arguments)  # type: ignore[arg-type]
    return msgspec.structs.replace(closed, status=ReceiptStatus.FAILED, code="tool.failed"), shown


async def _not_asked(held: Held, effect: OpenEffect, tool: object, code: str | None) -> None:
    await recovery._again(held, effect, tool, doubted=False)  # type: ignore[arg-type]


async def _not_flushed(self: Sequencer) -> None:
    return None


def _nothing_checked(self: Held, *_: object, **__: object) -> Callable[[], None]:
    return lambda: None


def _late_ignored(self: Sequencer, at_us: int, late: LateReceipt) -> None:
    return None


def _nothing_reported(*_: object) -> tuple[ev.Move, ...]:
    return ()


BUGS = (
    Bug("recovery repeats what must not be repeated", "step-failpoints", lambda: patched(recovery, "_close", _repeats)),
    Bug("recovery does not ask", "step-failpoints", lambda: patched(recovery, "_reconcile", _not_asked)),
    Bug("the idempotency key holds the epoch", "step-failpoints", lambda: patched(Held, "context", _keyed_by_epoch)),
    Bug("unknown counts as failed", "step-failpoints", lambda: patched(recovery, "unknown", _failed)),
    Bug("slices are not returned", "step-failpoints", lambda: patched(budget, "report", _nothing_reported)),
    Bug("receipts are not flushed", "lost-tool-answer", lambda: patched(Sequencer, "flush", _not_flushed)),
    Bug("attempts are not checked", "revoke-in-retry", lambda: patched(Held, "guard", _nothing_checked)),
    Bug("late receipts are ignored", "late-receipt", lambda: patched(Sequencer, "_take_late", _late_ignored)),
)
"""Every planted bug of the engine's crash suites."""

PLANTS = {bug.name: bug for bug in BUGS}
