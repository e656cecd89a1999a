"""Admission: from an envelope to a run contract, or to a refusal with a code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import msgspec

from quarterdeck import __version__
from quarterdeck.app.budgets import Budget, envelope_limits, overlaid
from quarterdeck.app.words import word
from quarterdeck.core import events as ev
from quarterdeck.core.canonical import canonical, parse
from quarterdeck.core.commit import Commit, Key, NewRun, record
from quarterdeck.core.context import estimate
from quarterdeck.core.contract import Caller, Envelope, RunContract, VersionSet, checked_key, checked_name
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.fairness import less_urgent
from quarterdeck.core.identity import ServiceIdentity
from quarterdeck.core.specs import AgentSpec, RouteSpec, ToolSpec
from quarterdeck.core.vocabulary import AUTONOMY_RULES, Autonomy, Mode, Priority, Risk, Ruling
from quarterdeck.ports.clock import Clock, Entropy

KEY_TTL_US = 24 * 3_600 * 1_000_000
"""How long an idempotency key means the same run."""

_RISKS = (Risk.LOW, Risk.MEDIUM, Risk.HIGH)


def new_run_id(clock: Clock, entropy: Entropy) -> str:
    """A run id that sorts by admission time."""
    return f"run_{clock.now_us():014x}{entropy.token(6).hex()}"


def envelope_of(
    intent: str,
    payload: object = None,
    *,
    tenant: str = "default",
    user: str = "anonymous",
    budget: Budget | None = None,
    idempotency_key: str | None = None,
    correlation_id: str | None = None,
    priority: str | None = None,
    mode: Mode | None = None,
) -> Envelope:
    """The envelope of what a caller says in words. Raises :class:`UsageError` for a budget that is none, or no caller's."""
    return Envelope(
        intent,
        payload,
        caller=Caller(tenant, user),
        budget=(budget or Budget()).envelope(),
        idempotency_key=idempotency_key,
        correlation_id=correlation_id,
        priority=priority,
        mode=mode,
    )


class Admission:
    """Makes contracts. Holds what is the same for all runs of a deck; decides nothing beyond the route table."""

    def __init__(
        self,
        deck: str,
        routes: Mapping[str, RouteSpec],
        agents: Mapping[str, AgentSpec],
        tools: Mapping[str, ToolSpec],
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._routes = routes
        self._agents = agents
        self._clock = clock
        self._entropy = entropy
        self._versions = {name: _versions(agent, tools) for name, agent in agents.items()}
        self._services = {name: ServiceIdentity(deck, name).subject for name in agents}

    def contract(
        self, envelope: Envelope, policy_version: str, budget_version: str, submitted_by: str = ""
    ) -> tuple[RunContract, bytes]:
        """The contract and the canonical payload of a run. Raises :class:`UsageError` or :class:`Refused` with a code."""
        route = self._routes.get(envelope.intent)
        if route is None:
            raise UsageError(
                "route.unknown",
                f"no route is called {envelope.intent[:80]!r}; there are: {', '.join(sorted(self._routes))}",
            )
        agent = self._agents[route.agent]
        tenant = checked_name("tenant", envelope.caller.tenant)
        if "*" not in route.tenants and tenant not in route.tenants:
            raise Refused("route.tenant", f"route {route.intent} does not serve tenant {tenant}; its owner is {route.owner}")
        mode = envelope.mode or route.modes[0]
        if mode not in route.modes:
            raise Refused("route.mode", f"route {route.intent} does not run as {mode}; it runs as {', '.join(route.modes)}")
        if envelope.ordering_key is not None:
            raise UsageError(
                "admission.ordering_key_unsupported", "no version so far keeps runs of one ordering key in order; leave it out"
            )
        payload = canonical_of("the payload", envelope.payload)
        run_id = new_run_id(self._clock, self._entropy) if envelope.run_id is None else checked_name("run", envelope.run_id)
        limits = overlaid(agent.limits, route.limits).narrowed(envelope_limits(envelope.budget))
        if mode is Mode.SYNC and limits.deadline_ms is None:
            limits = msgspec.structs.replace(limits, deadline_ms=15_000)
        now_us = self._clock.now_us()
        contract = RunContract(
            run_id=run_id,
            trace_id=self._entropy.token(16).hex(),
            request_id=self._entropy.token(8).hex(),
            correlation_id=checked_key("correlation_id", envelope.correlation_id or run_id),
            tenant=tenant,
            actor=checked_key("user", envelope.caller.user),
            route=route.intent,
            agent=agent.name,
            goal=_goal(payload),
            autonomy=tighter_autonomy(agent.autonomy, route.autonomy),
            risk=max(agent.risk, route.risk or Risk.LOW, key=_RISKS.index),
            mode=mode,
            version_set=msgspec.structs.replace(self._versions[agent.name], policy=policy_version),
            limits=limits,
            budget_policy_version=budget_version,
            policy_version=policy_version,
            allowed_tools=tuple(name for name in agent.tools if route.tools is None or name in route.tools),
            admitted_at_us=now_us,
            deadline_at_us=None if limits.deadline_ms is None else now_us + limits.deadline_ms * 1_000,
            idempotency_key=envelope.idempotency_key,
            thread_id=None if envelope.thread_id is None else checked_key("thread_id", envelope.thread_id),
            priority=_priority(route, envelope),
            submitted_by=submitted_by,
            service=self._services[agent.name],
        )
        return contract, payload

    def commit(self, contract: RunContract, payload: bytes, envelope: Envelope, incarnation: int) -> Commit:
        """The commit that makes a run exist, with its idempotency key."""
        tokens = estimate(payload.decode())
        new = NewRun(
            contract.tenant,
            contract.route,
            contract.agent,
            contract.actor,
            contract.admitted_at_us,
            self._entropy.token(32),
            contract.correlation_id,
            contract.thread_id,
            contract.parent_run_id,
            contract.priority,
        )
        key = None
        if envelope.idempotency_key is not None:
            body = msgspec.structs.replace(envelope, run_id=None, idempotency_key=None, correlation_id=None, payload=None)
            digest = hashlib.sha256(canonical(msgspec.to_builtins(body)) + payload).hexdigest()
            name = checked_key("idempotency_key", envelope.idempotency_key)
            key = Key(contract.tenant, name, digest, contract.admitted_at_us + KEY_TTL_US)
        admitted = record(ev.RunAdmitted(contract.admitted_at_us, contract, tokens), payload)
        return Commit(contract.run_id, 0, 0, incarnation, (admitted,), contract.admitted_at_us, new=new, key=key)


def canonical_of(what: str, value: object) -> bytes:
    """The canonical JSON of what somebody sends; raises :class:`UsageError` (``json.*``) for what is no JSON, or none for everybody,
    or longer than :data:`~quarterdeck.core.canonical.MAX_BYTES`.

    >>> canonical_of("the payload", {"b": 1, "a": [None]})
    b'{"a":[null],"b":1}'
    """
    try:
        text = json.dumps(msgspec.to_builtins(value), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError("json.unrepresentable", f"{what} has no JSON form ({str(error)[:200]}); send plain values") from None
    return canonical(parse(text.encode("utf-8", "surrogatepass")))


def _goal(payload: bytes) -> str:
    """A one-line description for lists; the payload itself is kept apart, where it can be erased."""
    return f"{len(payload)} bytes, sha256 {hashlib.sha256(payload).hexdigest()[:12]}"


def _versions(agent: AgentSpec, tools: Mapping[str, ToolSpec]) -> VersionSet:
    prompt = hashlib.sha256(agent.instructions.encode()).hexdigest()[:16]
    schemas = "".join(tools[name].schema_hash for name in agent.tools)
    tools_hash = hashlib.sha256(schemas.encode()).hexdigest()[:16]
    return VersionSet(agent.model, prompt, "", tools_hash, f"quarterdeck/{__version__}", program=agent.program)


def _priority(route: RouteSpec, envelope: Envelope) -> Priority:
    """The route's priority; a caller may only ask for a less urgent one."""
    own = word(Priority, route.priority)
    return own if envelope.priority is None else less_urgent(own, word(Priority, envelope.priority))


def tighter_autonomy(program: Autonomy, route: Autonomy | None) -> Autonomy:
    """The one of the two that allows less."""
    if route is None:
        return program
    order = {Ruling.DENY: 0, Ruling.ASK: 1, Ruling.ALLOW: 2}
    return min(program, route, key=lambda level: sum(order[ruling] for ruling in AUTONOMY_RULES[level].values()))
