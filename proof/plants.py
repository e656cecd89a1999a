"""Bugs on purpose, in the engine: each switches off one mechanism that a crash suite relies on, and that suite has to notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from quarterdeck.core import budget
from quarterdeck.core import events as ev
from quarterdeck.core.retry import Failure
from quarterdeck.core.state import OpenEffect, RunState
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus
from quarterdeck.engine import loading, performing, recovery
from quarterdeck.engine.held import Held
from quarterdeck.engine.performing import Receipt
from quarterdeck.engine.sequencer import LateReceipt, Sequencer
from quarterdeck.engine.services import Services
from quarterdeck.ports.tools import Tool, ToolContext
from quarterdeck.testing.patching import Plant, patched


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug, and the suite that has to notice it."""

    name: str
    suite: str
    planted: Plant


_close = recovery._close
_unknown = recovery.unknown
_again = recovery._again
_context = Held.context
_guard = Held.guard
_make = Sequencer.__init__
_classify_model = performing._classify_model
Told = Callable[[ev.Event, bytes | None], None]


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


class _LastAttempt(performing._Doubt):
    """Only the last attempt decides whether a call is in doubt."""

    __slots__ = ("_last",)

    def classify(self, error: Exception) -> Failure:
        definite = self._definite
        failure = super().classify(error)
        self._last = self._definite == definite
        return failure

    @property
    def left(self) -> bool:
        return self._last


class _NoDoubt(performing._Doubt):
    """Whatever raises has not done it."""

    @property
    def left(self) -> bool:
        return False


def _retried_in_place(error: Exception) -> Failure:
    return msgspec.structs.replace(_classify_model(error), started=False)


def _timeless(self: Held, kind: ProposalKind, name: str, until_s: float, *, fresh: bool = True) -> Callable[[], None]:
    return _guard(self, kind, name, math.inf, fresh=fresh)


def _not_told(self: Sequencer, services: Services, run_id: str, epoch: int, state: RunState, told: Told) -> None:
    _make(self, services, run_id, epoch, state, lambda event, payload: None)


class _Nothing(set[str]):
    """A set that holds nothing, whatever is added."""

    def add(self, element: str) -> None:
        return None


def _holding_nothing_back(self: Sequencer, services: Services, run_id: str, epoch: int, state: RunState, told: Told) -> None:
    _make(self, services, run_id, epoch, state, told)
    self.performing = _Nothing()


async def _undoubted(held: Held, effect: OpenEffect, tool: Tool, *, doubted: bool) -> None:
    await _again(held, effect, tool, doubted=False)


async def _blindly(held: Held, effect: OpenEffect, tool: Tool, *, doubted: bool) -> None:
    with patched(recovery, "revoked", lambda *_: None), patched(Held, "guard", _nothing_checked):
        await _again(held, effect, tool, doubted=doubted)


BUGS = (
    Bug("recovery repeats what must not be repeated", "step-failpoints", lambda: patched(recovery, "_close", _repeats)),
    Bug("recovery does not ask", "step-failpoints", lambda: patched(recovery, "_reconcile", _not_asked)),
    Bug("the idempotency key holds the epoch", "step-failpoints", lambda: patched(Held, "context", _keyed_by_epoch)),
    Bug("unknown counts as failed", "step-failpoints", lambda: patched(recovery, "unknown", _failed)),
    Bug("slices are not returned", "step-failpoints", lambda: patched(budget, "report", _nothing_reported)),
    Bug("receipts are not flushed", "lost-tool-answer", lambda: patched(Sequencer, "flush", _not_flushed)),
    Bug("only the last attempt counts", "lost-tool-answer", lambda: patched(performing, "_Doubt", _LastAttempt)),
    Bug("lost answers count as failures", "lost-tool-answer", lambda: patched(performing, "_Doubt", _NoDoubt)),
    Bug("attempts are not checked", "revoke-in-retry", lambda: patched(Held, "guard", _nothing_checked)),
    Bug("perform-by is not checked", "revoke-in-retry", lambda: patched(Held, "guard", _timeless)),
    Bug("time-outs are retried in place", "revoke-in-retry", lambda: patched(performing, "_classify_model", _retried_in_place)),
    Bug("a recovery does not look at revocations", "revoke-in-retry", lambda: patched(recovery, "_again", _blindly)),
    Bug("late receipts are ignored", "late-receipt", lambda: patched(Sequencer, "_take_late", _late_ignored)),
    Bug("a new owner does not wait", "late-receipt", lambda: patched(recovery, "GRACE_US", -(10**12))),
    Bug("late receipts are not shown", "late-receipt", lambda: patched(Sequencer, "__init__", _not_told)),
    Bug("nothing is held back", "late-receipt", lambda: patched(Sequencer, "__init__", _holding_nothing_back)),
    Bug("doubt is forgotten at a crash", "late-receipt", lambda: patched(recovery, "_again", _undoubted)),
    Bug("journals are not checked", "hostile-input", lambda: patched(loading, "require_whole", lambda *_: None)),
    Bug("messages are not checked", "hostile-input", lambda: patched(performing, "_unusable", lambda _: "")),
)
"""Every planted bug of the engine's crash suites."""

PLANTS = {bug.name: bug for bug in BUGS}
