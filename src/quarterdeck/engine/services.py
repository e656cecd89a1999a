"""What a runner needs from the rest of the runtime; made once by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quarterdeck.core.commit import Commit
from quarterdeck.core.contract import Limits, RunContract
from quarterdeck.core.errors import UsageError
from quarterdeck.core.specs import RouteSpec
from quarterdeck.engine.programs import Program
from quarterdeck.engine.stream import Hub
from quarterdeck.gate.gate import Gate
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.model import Model
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.resilience.dependency import Dependency


@dataclass(frozen=True, slots=True)
class Child:
    """A run that another one delegates to: its id, its route, its payload as JSON, and what it may consume at most."""

    run_id: str
    route: str
    payload: bytes
    limits: Limits


Delegate = Callable[[RunContract, Child], Commit]
"""The admission of a child of a run. Raises what admission raises, for a route that does not exist or does not serve its tenant."""


def alone(parent: RunContract, child: Child) -> Commit:
    """The admission of a runtime whose runs have no children."""
    raise UsageError("route.unknown", f"no route is called {child.route[:80]!r}")


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that all runs of a process share. ``refresh`` re-reads the facts that decisions are judged by."""

    worker: str
    journal: Journal
    insights: Insights
    gate: Gate
    clock: Clock
    entropy: Entropy
    hub: Hub
    programs: Mapping[str, Program]
    routes: Mapping[str, RouteSpec]
    models: Mapping[str, Model]
    model_dependencies: Mapping[str, Dependency]
    tool_dependencies: Mapping[str, Dependency]
    refresh: Callable[[], None]
    delegate: Delegate = alone
