"""The admission of child runs: what a run that another run asks for inherits from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quarterdeck.app.admission import Admission, tighter_autonomy
from quarterdeck.core.commit import Commit
from quarterdeck.core.contract import Caller, Envelope, RunContract
from quarterdeck.core.vocabulary import Mode
from quarterdeck.engine.services import Child, Delegate
from quarterdeck.gate.gate import Gate
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.store import Journal

if TYPE_CHECKING:
    from quarterdeck.app.deck import Quarterdeck


def delegating(deck: Quarterdeck, gate: Gate, clock: Clock, entropy: Entropy, journal: Journal) -> Delegate:
    """How runs of this deck ask for others.

    A child acts for the same tenant and person, in the same correlation, one step deeper. Its route says what it may do; of autonomy,
    deadline and budget it gets no more than its parent has.
    """
    admission = Admission(
        deck.name, deck.routes, deck.agents, {name: tool.spec for name, tool in deck.tools.items()}, clock, entropy
    )

    def delegate(parent: RunContract, child: Child) -> Commit:
        route = deck.routes.get(child.route)
        gated = parent.mode is Mode.HUMAN_GATED and route is not None and Mode.HUMAN_GATED in route.modes
        envelope = Envelope(
            child.route,
            msgspec.json.decode(child.payload),
            run_id=child.run_id,
            caller=Caller(parent.tenant, parent.actor),
            correlation_id=parent.correlation_id,
            mode=Mode.HUMAN_GATED if gated else None,
        )
        contract, payload = admission.contract(envelope, gate.policy_version, parent.budget_policy_version)
        limits = contract.limits.narrowed(child.limits)
        ends = [at_us for at_us in (contract.deadline_at_us, parent.deadline_at_us) if at_us is not None]
        contract = msgspec.structs.replace(
            contract,
            limits=limits,
            autonomy=tighter_autonomy(contract.autonomy, parent.autonomy),
            deadline_at_us=min(ends, default=None),
            parent_run_id=parent.run_id,
            submitted_by=parent.submitted_by,
            depth=parent.depth + 1,
            hops=parent.hops + 1,
        )
        return admission.commit(contract, payload, envelope, journal.incarnation)

    return delegate
