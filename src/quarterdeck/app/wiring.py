"""Puts the parts of a runtime together: gate, dependencies, programs, services."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from quarterdeck.app.children import delegating
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.routing import EVERY_ROUTE
from quarterdeck.core import rules
from quarterdeck.core.admission import problems as fallback_problems
from quarterdeck.core.admission import serves
from quarterdeck.core.budget import Account
from quarterdeck.core.contract import Limits, RunContract
from quarterdeck.core.controls import Controls, from_rows, switches_of
from quarterdeck.core.errors import UsageError
from quarterdeck.core.overrides import current, parsed
from quarterdeck.core.specs import AgentSpec, needed
from quarterdeck.core.tasks import program_of
from quarterdeck.core.windows import FACTS as WINDOW_FACTS
from quarterdeck.core.windows import WindowLimit, thread_account, window_of
from quarterdeck.engine.programs import Program, prepare
from quarterdeck.engine.services import Drain, Services
from quarterdeck.engine.stream import Hub
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.gate.gate import Gate
from quarterdeck.gate.proposals import Catalogue
from quarterdeck.models.local import LocalModel
from quarterdeck.models.openai import OpenAI
from quarterdeck.policy import CedarEngine, default_policies
from quarterdeck.policy.schema import PolicyManifest, PolicyTool
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.store import FactRow, Insights, Journal
from quarterdeck.resilience.dependency import Dependencies
from quarterdeck.tools.secrets import missing_secrets

FACTS = ("dependencies", "policy", "release", rules.FACT, "switches")
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
    rules: Mapping[str, str]


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
        tiered = [name for tier in agent.tiers for name in tier.models]
        wanted = {agent.model, *tiered, *agent.fallbacks, *([agent.degrade.model] if agent.degrade is not None else [])}
        if agent.compaction is not None and agent.compaction.model:
            wanted.add(agent.compaction.model)
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
    problems += _terms_problems(deck)
    problems += fallback_problems(deck.routes)
    for name, tool in deck.tools.items():
        problems += [
            f"tool {name} needs evidence from {other!r}, which does not exist"
            for other in tool.spec.evidence
            if other not in deck.tools
        ]
    problems += missing_secrets(deck.tools, deck.vault)
    for limit in deck.limits:
        problems += _limit_problems(deck, limit)
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


def _terms_problems(deck: Quarterdeck) -> list[str]:
    found = []
    for (tenant, intent), terms in deck.terms.items():
        if intent != EVERY_ROUTE and intent not in deck.routes:
            found.append(f"tenant {tenant} has terms on the route {intent!r}, which does not exist")
        elif not any(serves(route, tenant) for name, route in deck.routes.items() if intent in (EVERY_ROUTE, name)):
            what = "no route serves it" if intent == EVERY_ROUTE else f"the route {intent} does not serve it"
            found.append(f"tenant {tenant} has terms, and {what}")
        found += [
            f"the terms of tenant {tenant} name the tool {name!r}, which does not exist"
            for name in terms.tools or ()
            if name not in deck.tools
        ]
    return found


def _limit_problems(deck: Quarterdeck, limit: WindowLimit) -> list[str]:
    wrong = [
        f"limit {limit.name} names the tool {name!r}, which does not exist" for name in limit.tools if name not in deck.tools
    ]
    for name in limit.tools:
        if name in deck.tools:
            known = msgspec.json.decode(deck.tools[name].spec.input_schema, type=dict[str, object]).get("properties") or {}
            for argument in {*limit.per, *limit.sums} - set(WINDOW_FACTS):
                if not isinstance(known, dict) or argument not in known:
                    wrong.append(f"limit {limit.name} counts the argument {argument!r}, which the tool {name} does not have")
    return wrong


def check_models(deck: Quarterdeck) -> None:
    """Find which models of a deck cannot work on this machine: raises :class:`UsageError` (``model.unavailable``), and says what
    installs them or which key they lack. Apart from :func:`check_deck`, because whoever only asks for runs needs no model.
    """
    lacking = {name: model.missing() for name, model in deck.models.items() if isinstance(model, (LocalModel, OpenAI))}
    problems = [f"model {name}: {said}" for name, said in lacking.items() if said]
    if problems:
        raise UsageError("model.unavailable", "; ".join(problems))


def policy_of(deck: Quarterdeck, policies: Mapping[str, str] | None = None) -> CedarEngine:
    """The deck's policy set, or a candidate for it, validated against its tools, agents, models, routes and tenants."""
    tenants = {tenant for route in deck.routes.values() for tenant in route.tenants}
    manifest = PolicyManifest(
        tuple(PolicyTool.of(tool.spec) for tool in deck.tools.values()),
        tuple(deck.agents),
        tuple(deck.models),
        tuple(deck.routes),
        () if "*" in tenants else tuple(sorted(tenants)),
    )
    return CedarEngine.build(policies or deck.policies or default_policies(), manifest)


def programs_of(deck: Quarterdeck) -> tuple[str, ...]:
    """The code that this deck has, as a worker states it: one entry for each route."""
    found = {needed(route.intent, route.agent, deck.agents[route.agent].program) for route in deck.routes.values()}
    return tuple(sorted(found))


def budget_version(deck: Quarterdeck) -> str:
    """A content hash of the deck's shared budgets, recorded in every contract."""
    found = (sorted(deck.accounts.items()), sorted(deck.periods.items()), deck.limits)
    return _digest(repr(found if deck.periods or deck.limits else found[0]))


def rules_of(deck: Quarterdeck) -> dict[str, str]:
    """What this deck judges by beside its code, as a store knows it: a digest each of its policies, shared budgets and models' prices."""
    texts = deck.policies or default_policies()
    found = {"policies": _digest(repr(sorted(texts.items()))), "budgets": budget_version(deck)}
    return found | {f"price:{name}": _digest(repr(model.price)) for name, model in deck.models.items()}


def _digest(of: str) -> str:
    return hashlib.sha256(of.encode()).hexdigest()[:16]


def accounts_of(deck: Quarterdeck, now_us: Callable[[], int]) -> Callable[[RunContract], tuple[Account, ...]]:
    """The shared accounts above a run, from the narrowest to the widest, the same order for every run.

    Route, tenant and everything are always counted; threads, agents and periods where the deck limits them.
    """
    limits, periods = deck.accounts, deck.periods
    nothing = Limits()
    known: dict[tuple[str, ...], tuple[Account, ...]] = {}
    kinds = {name.partition(":")[0] for name in limits} | {name.partition(":")[0] for name, _ in periods}

    def accounts(contract: RunContract) -> tuple[Account, ...]:
        names = [f"route:{contract.route}", f"tenant:{contract.tenant}", "all"]
        if "agent" in kinds:
            names.insert(0, f"agent:{contract.agent}")
        if "thread" in kinds and contract.thread_id is not None:
            names.insert(0, thread_account(contract.tenant, contract.thread_id))
        labels = {per: window_of(per, now_us()) for per in {per for _, per in periods}} if periods else {}
        key = (*names, *labels.values())
        found = known.get(key)
        if found is None:
            made = [Account(name, limits.get(name, limits.get(_everyone(name), nothing))) for name in names]
            for per, label in sorted(labels.items()):
                for name in names:
                    limited = periods.get((name, per), periods.get((_everyone(name), per)))
                    if limited is not None:
                        made.append(Account(f"{name}@{label}", limited))
            found = tuple(made)
            if len(known) < 10_000:
                known[key] = found
        return found

    return accounts


def _everyone(name: str) -> str:
    return f"{name.partition(':')[0]}:*"


def _program(deck: Quarterdeck, agent: AgentSpec) -> Program:
    function = deck.workflows.get(agent.name)
    if function is None:
        specs = [deck.tools[tool].spec for tool in agent.tools]
        return prepare(agent, [spec for spec in specs if not spec.withdraws])
    return WorkflowProgram(
        agent,
        None,
        {},
        0,
        function=function,
        names=deck.names,
        compensations=deck.compensations,
        raises=agent.name in deck.raising,
    )


def _programs(deck: Quarterdeck) -> Iterator[tuple[str, AgentSpec]]:
    """Every agent by name; one with models by class of task also once for each of them."""
    for name, agent in deck.agents.items():
        yield name, agent
        for tier in agent.tiers:
            for model in tier.models:
                chosen = msgspec.structs.replace(agent, model=model, max_output_tokens=tier.max_output_tokens)
                yield program_of(name, tier.task_class, model), chosen


def controls_of(switches: FactRow | None) -> Controls:
    """The snapshot of the stored switches; of none, where none was ever set."""
    if switches is None:
        return Controls()
    return from_rows(switches.version, switches_of(switches.value))


def wire(
    deck: Quarterdeck,
    journal: Journal,
    insights: Insights,
    clock: Clock,
    entropy: Entropy,
    worker: str,
    *,
    judges: bool = True,
) -> Parts:
    """All parts of a runtime of this deck, on an open store.

    ``judges``: it drives runs, so it has to know when its rules are superseded.
    """
    dependencies = Dependencies(clock, entropy)
    for name, policy in deck.dependencies.items():
        dependencies.declare(name, policy)
    gate = Gate(
        Catalogue(deck.tools), policy_of(deck), accounts_of(deck, clock.now_us), clock.now_us, tuple(deck.trusted), deck.limits
    )
    gate.routes = deck.routes
    gate.attentions = tuple(deck.attentions)
    hub, drain, mine = Hub(), Drain(), rules_of(deck)
    in_force = _InForce(mine if judges else {}, drain)
    refresh = _Refresh(insights, gate, clock, in_force, dependencies)
    services = Services(
        worker=worker,
        journal=journal,
        insights=insights,
        gate=gate,
        clock=clock,
        entropy=entropy,
        hub=hub,
        programs={name: _program(deck, agent) for name, agent in _programs(deck)},
        routes=deck.routes,
        models=deck.models,
        model_dependencies={name: dependencies.get(f"model:{name}") for name in deck.models},
        tool_dependencies={name: dependencies.get(f"tool:{name}") for name in deck.tools},
        refresh=refresh,
        delegate=delegating(deck, gate, clock, entropy, journal, insights),
        topics=frozenset(deck.topics),
        drain=drain,
        channels=tuple([channel for channel, _ in deck.channels.values()]),
    )
    return Parts(services, gate, hub, clock, entropy, dependencies, budget_version(deck), refresh, mine)


class _Refresh:
    """Re-reads the facts that decisions are judged by: versions, switches, what was changed of dependencies."""

    def __init__(self, insights: Insights, gate: Gate, clock: Clock, in_force: _InForce, dependencies: Dependencies) -> None:
        self._insights = insights
        self._gate = gate
        self._clock = clock
        self._in_force = in_force
        self._dependencies = dependencies
        self._read_s = -math.inf

    def __call__(self, age_s: float = 0.0) -> None:
        now_s = self._clock.boottime_s()
        if now_s - self._read_s < age_s:
            return
        self._read_s = now_s
        rows = {row.name: row for row in self._insights.facts()}
        # A fact that was never set has version 0, and is named all the same: so its first setting refuses what was judged before.
        versions = dict.fromkeys(FACTS, 0) | {name: row.version for name, row in rows.items()}
        versions[rules.FACT] = self._in_force.version(rows.get(rules.FACT))
        self._gate.versions = versions
        self._gate.controls = controls_of(rows.get("switches"))
        overrides = rows.get("dependencies")
        if overrides is not None:
            self._dependencies.put(current(parsed(overrides.value), self._clock.now_us()))


class _InForce:
    """Whether the rules of this process are the ones in force, and by which version of that fact it may judge."""

    def __init__(self, mine: Mapping[str, str], drain: Drain) -> None:
        self._mine = mine
        self._drain = drain
        self._version = 0

    def version(self, row: FactRow | None) -> int:
        """The newest version that has these rules: where others are in force, an old one, so that whatever is judged here is refused."""
        others = rules.against(rules.stored(row.value), self._mine) if row is not None else ()
        if not others:
            self._version = row.version if row is not None else 0
        if others != self._drain.superseded:
            _tell_superseded(others)
            self._drain.superseded = others
        return self._version


def _tell_superseded(others: tuple[str, ...]) -> None:
    if others:
        _log.warning(
            "worker.superseded: newer %s are in force than this process has; it claims nothing and gives its runs back: start it with "
            "the newer deck, or put these in force again with `quarterdeck policy declare`",
            ", ".join(others),
        )
    else:
        _log.info("the policies, budgets and prices of this process are in force again; it claims runs")
