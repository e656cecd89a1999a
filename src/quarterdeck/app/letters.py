"""Dead letters: runs that could not be done. Show them, run them again, or let them go.

A run is one when it ended as ``failed`` because something ``blocked`` it: it killed worker after worker (``run.poison``), it diverged from
its own journal, an effect of it was given up. Its journal is final, so to run it again is to ask for a *new* run with the same input, for
the same caller, under limits that are no wider; its name follows from the old one's, so that requeueing twice asks for one run.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from quarterdeck.app.admission import Admission
from quarterdeck.app.orders import Apply, checked_reason, refusal
from quarterdeck.app.routing import tighter_autonomy
from quarterdeck.app.views import row_of
from quarterdeck.core import events as ev
from quarterdeck.core.audit import Audit
from quarterdeck.core.commit import Applied, Commit, SettleLetter
from quarterdeck.core.contract import Caller, Envelope, RunContract, checked_key
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.labels import either
from quarterdeck.core.vocabulary import Status
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import Insights

_AGAIN = re.compile(r"(?P<first>.*)-again(?P<number>[1-9][0-9]{0,6})")


def again(run_id: str) -> str:
    """The id of the run that a run is requeued as.

    >>> again("run_1"), again("run_1-again1")
    ('run_1-again1', 'run_1-again2')
    """
    found = _AGAIN.fullmatch(run_id)
    return f"{run_id}-again1" if found is None else f"{found['first']}-again{int(found['number']) + 1}"


class Letters:
    """Decides about dead letters on one store. Every decision is durable when it returns, and harmless to repeat."""

    def __init__(self, apply: Apply, insights: Insights, clock: Clock) -> None:
        self._apply = apply
        self._insights = insights
        self._clock = clock

    async def drop(self, run_id: str, *, by: str, reason: str) -> None:
        """Let a dead letter go: it is no longer listed; its record stays."""
        if not reason.strip():
            raise UsageError("reason.missing", "say why it is dropped; it is recorded")
        self._failed(run_id)
        await self._settle(run_id, "dropped", by, reason)

    async def requeue(
        self, run_id: str, admission: Admission, versions: tuple[str, str], incarnation: int, *, by: str, reason: str = ""
    ) -> tuple[str, bool]:
        """Ask for what a failed run was asked for, once more: the new run's id, and whether it was there already.

        ``versions`` are those of the policies and of the budgets. Raises ``Refused``: ``requeue.not_failed``, ``requeue.erased``,
        ``requeue.dropped``; and what admission raises.
        """
        self._failed(run_id)
        settled = self._insights.letter(run_id)
        if settled is not None and settled.how == "dropped":
            raise Refused("requeue.dropped", f"run {run_id} was dropped by {settled.by}; ask for a new run instead")
        name = again(run_id)
        existing = self._insights.run(name) is not None
        if not existing:
            outcome = await self._apply(self._commit(run_id, name, admission, versions, incarnation))
            if not isinstance(outcome, Applied):
                if outcome.guard != "run":
                    raise refusal(outcome)
                existing = True
        await self._settle(run_id, "requeued", by, reason)
        return name, existing

    def _commit(self, run_id: str, name: str, admission: Admission, versions: tuple[str, str], incarnation: int) -> Commit:
        first = self._insights.events(run_id, 0, 1)[0]
        event = ev.decode(first.body)
        if not isinstance(event, ev.RunAdmitted) or first.payload is None:
            raise Refused("requeue.erased", f"what run {run_id} was asked for is erased; ask for a new run")
        was = event.contract
        envelope = Envelope(
            was.route,
            msgspec.json.decode(first.payload),
            run_id=name,
            caller=Caller(was.tenant, was.actor),
            correlation_id=was.correlation_id,
            thread_id=was.thread_id,
            ordering_key=was.ordering_key,
            priority=was.priority,
            mode=was.mode,
        )
        contract, payload = admission.contract(envelope, *versions, was.submitted_by)
        return admission.commit(_no_wider(contract, was), payload, envelope, incarnation)

    def _failed(self, run_id: str) -> None:
        row = row_of(self._insights, run_id)
        if row.status != Status.FAILED:
            raise Refused("requeue.not_failed", f"run {run_id} is {row.status}; only failed runs are dead letters, or run again")

    async def _settle(self, run_id: str, how: Literal["requeued", "dropped"], by: str, reason: str) -> None:
        now_us, who, why = self._clock.now_us(), checked_key("by", by), checked_reason(reason)
        op = SettleLetter(run_id, how, who, why, now_us, Audit(f"letter.{how}", who, run_id, now_us, why))
        outcome = await self._apply(op)
        if not isinstance(outcome, Applied):
            raise refusal(outcome)


def _no_wider(contract: RunContract, was: RunContract) -> RunContract:
    """A contract under which nothing is allowed that was not allowed before."""
    return msgspec.structs.replace(
        contract,
        limits=contract.limits.narrowed(was.limits),
        autonomy=tighter_autonomy(contract.autonomy, was.autonomy),
        labels=either(contract.labels, was.labels),
        allowed_tools=tuple([name for name in contract.allowed_tools if name in was.allowed_tools]),
        depth=was.depth,
        hops=was.hops,
    )
