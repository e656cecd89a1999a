"""The admission of child runs: what a run that another run asks for inherits from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quarterdeck.app.admission import admission_of
from quarterdeck.app.routing import tighter_autonomy
from quarterdeck.core.admission import Conditions
from quarterdeck.core.commit import Commit
from quarterdeck.core.contract import Caller, Envelope, RunContract
from quarterdeck.core.errors import Refused
from quarterdeck.core.events import RunAdmitted, decode
from quarterdeck.core.labels import NO_LABELS
from quarterdeck.core.vocabulary import Mode
from quarterdeck.engine.services import Child, Delegate
from quarterdeck.gate.gate import Gate
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.store import Insights, Journal

if TYPE_CHECKING:
    from quarterdeck.app.deck import Quarterdeck


def delegating(deck: Quarterdeck, gate: Gate, clock: Clock, entropy: Entropy, journal: Journal, insights: Insights) -> Delegate:
    """How runs of this deck ask for others.

    A child acts for the same tenant and person, in the same correlation, one step deeper. Its route says what it may do; of autonomy,
    deadline and budget it gets no more than its parent has. A child that would stand in its own line behind a run that waits for it is
    refused (``ordering.deadlock``).
    """
    admission = admission_of(deck, clock, entropy)

    def waits_above(parent: RunContract, child: Child) -> bool:
        """Whether a run above this child has the place in the line that the child would wait for."""
        above: RunContract | None = parent
        while above is not None:
            if (above.route, above.ordering_key) == (child.route, child.ordering_key):
                return True
            above = _contract(insights, above.parent_run_id)
        return False

    def delegate(parent: RunContract, child: Child) -> Commit:
        if child.ordering_key is not None and waits_above(parent, child):
            said = f"a run above waits for this one and holds the ordering key {child.ordering_key!r} of route {child.route}; use another"
            raise Refused("ordering.deadlock", said)
        route = deck.routes.get(child.route)
        gated = parent.mode is Mode.HUMAN_GATED and route is not None and Mode.HUMAN_GATED in route.modes
        envelope = Envelope(
            child.route,
            msgspec.json.decode(child.payload),
            run_id=child.run_id,
            caller=Caller(parent.tenant, parent.actor),
            correlation_id=parent.correlation_id,
            thread_id=parent.thread_id,
            ordering_key=child.ordering_key,
            mode=Mode.HUMAN_GATED if gated else None,
        )
        now = Conditions(gate.controls, now_us=clock.now_us())
        contract, payload = admission.contract(envelope, gate.policy_version, parent.budget_policy_version, now=now)
        limits = contract.limits.narrowed(child.limits)
        ends = [at_us for at_us in (contract.deadline_at_us, parent.deadline_at_us) if at_us is not None]
        contract = msgspec.structs.replace(
            contract,
            limits=limits,
            autonomy=tighter_autonomy(contract.autonomy, parent.autonomy),
            deadline_at_us=min(ends, default=None),
            parent_run_id=parent.run_id,
            submitted_by=parent.submitted_by,
            labels=contract.labels if child.labels == NO_LABELS else child.labels.joined(contract.labels or NO_LABELS),
            depth=parent.depth + 1,
            hops=parent.hops + 1,
        )
        return admission.commit(contract, payload, envelope, journal.incarnation)

    return delegate


def _contract(insights: Insights, run_id: str | None) -> RunContract | None:
    for stored in insights.events(run_id, 0, 1) if run_id is not None else ():
        event = decode(stored.body)
        if isinstance(event, RunAdmitted):
            return event.contract
    return None
