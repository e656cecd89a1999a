"""What a runner needs from the rest of the runtime; made once by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from quarterdeck.core.commit import Commit
from quarterdeck.core.contract import Limits, RunContract
from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import NO_LABELS, Labels
from quarterdeck.core.notices import Channel
from quarterdeck.core.specs import RouteSpec
from quarterdeck.engine.answers import Answers
from quarterdeck.engine.flights import Flights
from quarterdeck.engine.openings import Openings
from quarterdeck.engine.programs import Program
from quarterdeck.engine.pulse import Pulses
from quarterdeck.engine.stream import Hub
from quarterdeck.gate.gate import Gate
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.model import Model
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.resilience.dependency import Dependency


@dataclass(frozen=True, slots=True)
class Child:
    """A run that another one delegates to: its id, its route, its payload as JSON, what it may consume at most, and the labels of what
    its parent had read.
    """

    run_id: str
    route: str
    payload: bytes
    limits: Limits
    labels: Labels = NO_LABELS
    ordering_key: str | None = None


Delegate = Callable[[RunContract, Child], Commit]
"""The admission of a child of a run. Raises what admission raises, for a route that does not exist or does not serve its tenant."""


def alone(parent: RunContract, child: Child) -> Commit:
    """The admission of a runtime whose runs have no children."""
    raise UsageError("route.unknown", f"no route is called {child.route[:80]!r}")


@dataclass(slots=True)
class Drain:
    """Whether this process must not go on with runs: they finish what they are performing, begin nothing new, and are given back.

    It is ``stopping``; or it is ``superseded``: others have declared newer rules than those that it judges by, these.
    """

    stopping: bool = False
    superseded: tuple[str, ...] = ()

    @property
    def asked(self) -> bool:
        """Whether runs are to be given back, for either reason."""
        return self.stopping or self.superseded != ()


MAX_CODES = 500
"""So many pairs of ruling and code are counted apart; codes that are declared are fewer, and what is more counts as ``other``."""


class Refusals:
    """How often this process has decided something else than to allow, by ruling and first reason code."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], int] = {}

    def count(self, ruling: str, reasons: Sequence[str]) -> None:
        """One more; a decision that is made anew because something has changed meanwhile is one more."""
        pair = (ruling, reasons[0] if reasons else "none")
        if pair not in self.counted and len(self.counted) >= MAX_CODES:
            pair = (ruling, "other")
        self.counted[pair] = self.counted.get(pair, 0) + 1


class Refresh(Protocol):
    """Re-reads the facts that decisions are judged by, unless they were read less than ``age_s`` ago."""

    def __call__(self, age_s: float = 0.0) -> None:
        """Read them."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that all runs of a process share."""

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
    refresh: Refresh
    delegate: Delegate = alone
    topics: frozenset[str] = frozenset()
    channels: tuple[Channel, ...] = ()
    flights: Flights = field(default_factory=Flights)
    answers: Answers = field(default_factory=Answers)
    openings: Openings = field(default_factory=Openings)
    drain: Drain = field(default_factory=Drain)
    pulses: Pulses = field(default_factory=Pulses)
    refusals: Refusals = field(default_factory=Refusals)

    def program(self, contract: RunContract) -> Program | None:
        """The program of a run: the one of its class of task, if that is still there, else its agent's."""
        return self.programs.get(contract.program) or self.programs.get(contract.agent)
