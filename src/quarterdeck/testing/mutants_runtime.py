"""Bugs on purpose in the engine, the gate, the dispatcher and the core: the simulator has to notice each of them.

Each mutant rewrites a few words of one function, as they stand in its source, and runs the function so rewritten. A mutant whose
words are no longer there raises instead of planting nothing. ``point`` is the point of the append contract that it breaks (0: the hot
path), ``invariants`` what is violated then.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from types import CodeType, FunctionType

from quarterdeck.testing.patching import Plant

Edit = tuple[str, str, str]
"""Where (``module:function`` below ``quarterdeck``), what it says, what it says instead."""


@dataclass(frozen=True, slots=True)
class RuntimeMutant:
    """One planted bug of the runtime. A ``rare`` one needs more simulations than a test has time for."""

    name: str
    point: int
    invariants: tuple[str, ...]
    edits: tuple[Edit, ...]
    rare: bool = False

    @property
    def planted(self) -> Plant:
        """Opens a span of time in which the bug is there."""
        return lambda: _rewritten(self.edits)


@contextmanager
def _rewritten(edits: tuple[Edit, ...]) -> Iterator[None]:
    with ExitStack() as stack:
        for place in dict.fromkeys([place for place, _, _ in edits]):
            function = _find(place)
            stack.callback(setattr, function, "__code__", function.__code__)
            function.__code__ = _compiled(function, [(old, new) for where, old, new in edits if where == place])
        yield


def _find(place: str) -> FunctionType:
    module, _, path = place.partition(":")
    found: object = reduce(getattr, path.split("."), import_module(f"quarterdeck.{module}"))
    found = found.fget if isinstance(found, property) else found
    if not isinstance(found, FunctionType):
        raise LookupError(f"{place} is no function")
    return found


def _compiled(function: FunctionType, changes: list[tuple[str, str]]) -> CodeType:
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if source.count(old) != 1:
            raise LookupError(f"{function.__qualname__} says {old!r} {source.count(old)} times, not once")
        source = source.replace(old, new)
    module = sys.modules[function.__module__]
    scope: dict[str, object] = {}
    code = compile("from __future__ import annotations\n" + source, f"<{function.__qualname__}>", "exec")
    exec(code, vars(module), scope)  # noqa: S102 - our own source, with a bug in it
    rewritten = scope[function.__name__]
    rewritten = rewritten.fget if isinstance(rewritten, property) else rewritten
    if not isinstance(rewritten, FunctionType) or rewritten.__code__.co_freevars != function.__code__.co_freevars:
        raise LookupError(f"{function.__qualname__} cannot be rewritten alone")
    return rewritten.__code__


def mutant(name: str, point: int, invariants: str, *edits: Edit, rare: bool = False) -> RuntimeMutant:
    """A planted bug; ``invariants`` are separated by spaces."""
    return RuntimeMutant(name, point, tuple(invariants.split()), edits, rare)


_APPEND = "engine.sequencer:Sequencer._append"
_GUARD = "engine.held:Held.guard"

RUNTIME_MUTANTS = (
    mutant(
        "receipts follow the intents of their commit", 5, "I2",
        (_APPEND, "(*self._noted, *[record(event, payload) for event, payload in happenings])",
         "(*[record(event, payload) for event, payload in happenings], *self._noted)"),
    ),
    mutant(
        "receipts are not carried before intents", 5, "I14",
        ("engine.sequencer:Sequencer.note", "self._noted.append(record(event, payload))",
         "self._noted.append(record(event, payload)) if type(event) is not ev.ToolClosed else None"),
    ),
    mutant(
        "a receipt that is not idempotent is delivered before its commit", 5, "I2",
        ("engine.acting:perform", "await held.sequencer.flush()", "pass"),
        rare=True,
    ),
    mutant(
        "live events are shown before their commit", 5, "contract",
        (_APPEND, "outcome = await", "self._services.hub.committed(self.run_id, self._committed, records)\n    outcome = await"),
    ),
    mutant("perform-by is not checked", 6, "I2", (_GUARD, "if now_s > until_s or", "if")),
    mutant(
        "an open intent is taken over without waiting out its perform-by time", 6, "I12",
        ("engine.recovery:recover", "if not services.journal.quiesced:", "if False:"),
    ),
    mutant("revocation is not looked at before a retry", 0, "I9", (_GUARD, "if code is not None:", "if False:")),
    mutant(
        "the first attempt trusts a slow commit", 6, "I9",
        (_GUARD, "until_s - PERFORM_WITHIN_S + FRESH_S if fresh", "until_s if fresh"),
    ),
    mutant(
        "a stale owner retries", 1, "I9", (_GUARD, "if not self.sequencer.read_inbox():", "if not self.sequencer.read_inbox() and False:"),
        rare=True,
    ),
    mutant(
        "an effect that is not idempotent is repeated after a crash", 7, "I2",
        ("engine.recovery:_close", "effect.idempotent and services", "services"),
    ),
    mutant(
        "an effect is repeated after its key has expired", 7, "I2",
        ("engine.held:Held.repeats_until_s", "return opened_s + spec.idempotent_for_s - spec.timeout_s", "return inf"),
        rare=True,
    ),
    mutant(
        "an effect that can be asked about is repeated without asking", 7, "I2",
        ("engine.recovery:_close", "await _reconcile(held, effect, tool, code)", "await _again(held, effect, tool, doubted=False)"),
        rare=True,
    ),
    mutant(
        "what nobody knows counts as failed", 7, "I2",
        ("engine.performing:unknown", "ReceiptStatus.UNKNOWN", "ReceiptStatus.FAILED"),
    ),
    mutant(
        "a lost answer counts as a failure", 0, "I2",
        ("engine.performing:_Doubt.left", "self._before or self._permit.attempts > self._definite", "False"),
    ),
    mutant(
        "the former owner's attempt is forgotten", 7, "I2",
        ("engine.recovery:_again", "doubted=doubted,\n        reins", "doubted=False,\n        reins"),
        rare=True,
    ),
    mutant(
        "each attempt has a key of its own", 0, "I2",
        ("engine.performing:perform_tool", "return _once(tool, arguments, context)",
         "return _once(tool, arguments, msgspec.structs.replace(context, idempotency_key=f'{context.call}#{_number}'))"),
    ),
    mutant(
        "recovery uses a new key", 7, "I2",
        ("engine.recovery:_again", "effect.key, asked)", "effect.key + ':again', asked)"),
    ),
    mutant("an approval is not consumed", 7, "I5", ("engine.acting:act", "tuple(batch.consumes)", "()")),
    mutant(
        "an approval's digest is not compared", 7, "I5",
        ("core.judge:rule", "if approval.digest != proposal.digest:", "if False:"),
        ("testing.tables:Tables._is_usable", "approval.digest == consume.digest", "True"),
    ),
    mutant(
        "an approval's expiry is not looked at again", 7, "I5",
        ("core.judge:rule", "if facts.now_us >= until_us:", "if False:"),
        ("testing.tables:Tables._is_usable", "and approval.expires_at_us > consume.at_us", ""),
        rare=True,
    ),
    mutant(
        "a rejected action is performed", 7, "I5",
        ("core.judge:rule", 'approval.outcome in ("rejected", "expired", "answered")', "False"),
        ("core.judge:rule", 'if approval.outcome != "approved":', "if False:"),
        ("testing.tables:Tables._is_usable", 'approval.status == "approved"', 'approval.status in ("approved", "rejected")'),
        rare=True,
    ),
    mutant("nobody is asked", 0, "I5", ("core.judge:_asks", "return asks", "return ()")),
    mutant("the control guard is not sent", 3, "I9", ("engine.sequencer:Sequencer.commit", "control=self._control", "control=None")),
    mutant(
        "the versions of the facts are not sent", 3, "I9",
        ("engine.sequencer:Sequencer.commit", "facts=self._services.gate.versions if facts is None else facts", "facts=None"),
    ),
    mutant(
        "facts are those of the commit, not of the judgement", 3, "I9",
        ("engine.acting:act", "facts=judged_by,", ""),
        ("engine.asking:_commit", "facts=judged_by, ", ""),
        rare=True,
    ),
    mutant(
        "a refused intent is sent again without judging it again", 3, "I9",
        ("engine.acting:act", "if refused.guard == \"account\":", "if refused.guard in ('control', 'facts'):\n"
         "            batch.release()\n            break\n        if refused.guard == \"account\":"),
    ),
    mutant(
        "a fact that was never set is not guarded", 3, "I9", ("app.wiring:_Refresh.__call__", "dict.fromkeys(FACTS, 0) | ", "")
    ),
    mutant(
        "refused connections are charged", 8, "I3",
        ("engine.performing:_Doubt.tries", "self._permit.attempts - self._unstarted", "self._permit.attempts"),
        rare=True,
    ),
    mutant(
        "reservations are not counted against slices", 8, "I3",
        ("core.budget:leases", "+ state.reserved.get(dimension, 0) + amount", "+ amount"),
    ),
    mutant(
        "slices are not returned", 8, "I3", ("core.budget:report", "returned=free", "returned=0")
    ),
    mutant(
        "what open effects have reserved is given back", 8, "I3",
        ("core.budget:report", "held - state.reserved.get(dimension, 0)", "held"),
    ),
    mutant(
        "calls of one message do not see each other's reservations", 8, "I3",
        ("engine.acting:_Tentative.count", "self._reserved.add(dimension, amount)", "pass"),
    ),
    mutant("a run's own limit is not looked at", 8, "I3", ("core.budget:shortfall", "return dimension", "pass")),
    mutant(
        "a model call that may have been billed is retried under one reservation", 8, "I3",
        ("engine.performing:perform_model", "may_retry=False", "may_retry=True"),
    ),
    mutant(
        "an interrupted model call costs nothing", 8, "I3",
        ("engine.recovery:_interrupted", 'worst.get("tokens", 0)', "0"),
    ),
    mutant(
        "a commit whose outcome is unknown is built anew", 4, "I2 I7",
        ("engine.sequencer:Sequencer._durably", "answer = self._services.journal.submit(commit)",
         "seq = len(self._services.insights.events(self.run_id)) if sent else commit.seq\n"
         "            answer = self._services.journal.submit(msgspec.structs.replace(commit, seq=seq))"),
    ),
    mutant(
        "an unknown outcome counts as a refusal", 4, "I7",
        ("engine.sequencer:Sequencer._durably", "if sent:", "if sent:\n            return Refused('control')\n        if sent:"),
    ),
    mutant(
        "a claim whose answer is lost is forgotten", 1, "I1",
        ("dispatch.embedded:EmbeddedDispatcher._ask_for", "await self._clock.sleep(delay_s)", "return Claimed(())"),
    ),
    mutant(
        "a late receipt is put away unread", 6, "I18",
        ("engine.sequencer:Sequencer._fold_in", "if self._settles(late):", "if False:"),
        rare=True,
    ),
    mutant(
        "a late receipt does not reach the transcript", 6, "I14",
        ("engine.sequencer:Sequencer._take_late", "self._told(event, payload)", "pass"),
    ),
    mutant(
        "a waiting run has no time to wake at", 1, "I18",
        ("engine.runner:_rest", "Head(Status.WAITING, how.reason, how.code, how.on, wake_at_us, release=True)",
         "Head(Status.WAITING, how.reason, how.code, how.on, None, release=True)"),
    ),
    mutant("a resting run keeps its lease", 1, "I12", ("engine.runner:_rest", "wake_at_us, release=True)", "wake_at_us)")),
    mutant(
        "a denied call is performed", 0, "I4",
        ("engine.acting:_decide", "if decision.ruling is Ruling.ALLOW:\n                found = await",
         "if decision.ruling is not Ruling.ASK and proposal.name in held.services.tool_dependencies and not proposal.problem:\n"
         "                found = await"),
    ),
    mutant(
        "other arguments are executed than were judged", 0, "I4",
        ("engine.acting:perform", "item.proposal.arguments,", "item.proposal.arguments.replace(b'\"amount\":1', b'\"amount\":2'),"),
    ),
    mutant("a switch stops nothing", 0, "I9", ("core.judge:screen", "if code is not None:", "if False:")),
    mutant("a cancel is not folded in", 1, "I9", ("core.fold:_cancel_requested", "state.cancelled_by = event.by", "pass")),
    mutant(
        "a run ends with open effects", 7, "I19",
        ("core.loop:next_move", "if state.open:", "if state.open and not state.cancelled_by:"),
    ),
    mutant(
        "an unknown effect does not hold its run", 7, "I2",
        ("core.loop:next_move", "if state.unknown and", "if False and"),
    ),
    mutant(
        "a takeover does not read the whole transcript", 9, "I14",
        ("engine.loading:load", "transcript.apply(event, stored.payload)",
         "transcript.apply(event, stored.payload if type(event) is not ev.ToolClosed else b'null')"),
    ),
    mutant(
        "an intent is folded before the store has taken it", 3, "I14",
        (_APPEND, "    for event, _ in happenings:\n        fold(self.state, event)\n    self", "    self"),
        (_APPEND, "outcome = await", "for event, _ in happenings:\n        fold(self.state, event)\n    outcome = await"),
    ),
)  # fmt: skip
"""Every planted bug of the runtime."""
