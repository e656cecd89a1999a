"""Puts the parts of a runtime together: gate, dependencies, programs, services."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from quarterdeck.app.children import delegating
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.core.budget import Account
from quarterdeck.core.contract import Limits, RunContract
from quarterdeck.core.controls import from_rows
from quarterdeck.core.errors import UsageError
from quarterdeck.core.specs import AgentSpec
from quarterdeck.engine.programs import Program, prepare
from quarterdeck.engine.services import Services
from quarterdeck.engine.stream import Hub
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.gate.gate import Gate
from quarterdeck.gate.proposals import Catalogue
from quarterdeck.models.local import LocalModel
from quarterdeck.policy import CedarEngine, default_policies
from quarterdeck.policy.schema import PolicyManifest, PolicyTool
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.policy import PolicyEngine
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.resilience.dependency import Dependencies

FACTS = ("policy", "release", "switches")
"""Every fact that decisions are judged by."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a runtime is made of."""

    services: Services
    gate: Gate
    hub: Hub
    clock: Clock
    entropy: Entropy
    dependencies: Dependencies
    budget_version: str
    refresh: Callable[[], None]


def check_deck(deck: Quarterdeck) -> None:
    """Find what would fail at run time: raises :class:`UsageError` (``deck.invalid``) with every problem of a deck."""
    problems = []
    deck.complete()
    for agent in deck.agents.values():
        problems += [
            f"agent {agent.name} names the tool {name!r}, which does not exist" for name in agent.tools if name not in deck.tools
        ]
        if agent.name in deck.workflows:
            continue
        wanted = {agent.model, *([agent.degrade.model] if agent.degrade is not None else [])}
        problems += [
            f"agent {agent.name} names the model {name!r}, which does not exist" for name in sorted(wanted - set(deck.models))
        ]
    for route in deck.routes.values():
        if route.agent not in deck.agents:
            problems.append(f"route {route.intent} leads to the agent {route.agent!r}, which does not exist")
        problems += [
            f"route {route.intent} names the tool {name!r}, which does not exist"
            for name in route.tools or ()
            if name not in deck.tools
        ]
    for name, tool in deck.tools.items():
        problems += [
            f"tool {name} needs evidence from {other!r}, which does not exist"
            for other in tool.spec.evidence
            if other not in deck.tools
        ]
    for name, tool in deck.tools.items():
        if tool.spec.sandbox != "in_process":
            _log.warning(
                "tool %s asks for the sandbox %r; this version performs every tool in its own process", name, tool.spec.sandbox
            )
    for name, model in deck.models.items():
        try:
            _ = model.price
        except UsageError as error:
            problems.append(f"model {name}: {error.message}")
    if problems:
        raise UsageError("deck.invalid", "; ".join(problems))


def check_models(deck: Quarterdeck) -> None:
    """Find which models of a deck cannot work on this machine: raises :class:`UsageError` (``model.unavailable``), and says what
    installs them. Apart from :func:`check_deck`, because whoever only asks for runs needs no model.
    """
    lacking = {name: model.missing() for name, model in deck.models.items() if isinstance(model, LocalModel)}
    problems = [f"model {name}: {said}" for name, said in lacking.items() if said]
    if problems:
        raise UsageError("model.unavailable", "; ".join(problems))


def policy_of(deck: Quarterdeck) -> PolicyEngine:
    """The deck's policy set, validated against its tools, agents and models."""
    manifest = PolicyManifest(
        tuple(PolicyTool.of(tool.spec) for tool in deck.tools.values()), tuple(deck.agents), tuple(deck.models)
    )
    return CedarEngine.build(deck.policies or default_policies(), manifest)


def budget_version(deck: Quarterdeck) -> str:
    """A content hash of the deck's shared budgets, recorded in every contract."""
    return hashlib.sha256(repr(sorted(deck.accounts.items())).encode()).hexdigest()[:16]


def accounts_of(deck: Quarterdeck) -> Callable[[RunContract], tuple[Account, ...]]:
    """The shared accounts above a run, from the narrowest to the widest, the same order for every run."""
    limits = deck.accounts
    nothing = Limits()
    everyone = limits.get("tenant:*", nothing)
    known: dict[tuple[str, str], tuple[Account, ...]] = {}

    def accounts(contract: RunContract) -> tuple[Account, ...]:
        key = (contract.route, contract.tenant)
        found = known.get(key)
        if found is None:
            route, tenant = f"route:{contract.route}", f"tenant:{contract.tenant}"
            found = (
                Account(route, limits.get(route, nothing)),
                Account(tenant, limits.get(tenant, everyone)),
                Account("all", limits.get("all", nothing)),
            )
            if len(known) < 10_000:
                known[key] = found
        return found

    return accounts


def _program(deck: Quarterdeck, agent: AgentSpec) -> Program:
    function = deck.workflows.get(agent.name)
    if function is None:
        return prepare(agent, [deck.tools[tool].spec for tool in agent.tools])
    return WorkflowProgram(agent, None, {}, 0, function=function, names=deck.names, compensations=deck.compensations)


def wire(deck: Quarterdeck, journal: Journal, insights: Insights, clock: Clock, entropy: Entropy, worker: str) -> Parts:
    """All parts of a runtime of this deck, on an open store."""
    dependencies = Dependencies(clock, entropy)
    for name, policy in deck.dependencies.items():
        dependencies.declare(name, policy)
    gate = Gate(Catalogue(deck.tools), policy_of(deck), accounts_of(deck), clock.now_us)
    hub = Hub()

    def refresh() -> None:
        rows = {row.name: row for row in insights.facts()}
        # A fact that was never set has version 0, and is named all the same: so its first setting refuses what was judged before.
        gate.versions = dict.fromkeys(FACTS, 0) | {name: row.version for name, row in rows.items()}
        switches = rows.get("switches")
        if switches is not None:
            names = frozenset(msgspec.json.decode(switches.value, type=list[str]))
            gate.controls = from_rows(switches.version, names)

    services = Services(
        worker=worker,
        journal=journal,
        insights=insights,
        gate=gate,
        clock=clock,
        entropy=entropy,
        hub=hub,
        programs={name: _program(deck, agent) for name, agent in deck.agents.items()},
        routes=deck.routes,
        models=deck.models,
        model_dependencies={name: dependencies.get(f"model:{name}") for name in deck.models},
        tool_dependencies={name: dependencies.get(f"tool:{name}") for name in deck.tools},
        refresh=refresh,
        delegate=delegating(deck, gate, clock, entropy, journal),
    )
    return Parts(services, gate, hub, clock, entropy, dependencies, budget_version(deck), refresh)
