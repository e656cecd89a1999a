"""Admission: from an envelope to a run contract, or to a refusal with a code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from quarterdeck import __version__
from quarterdeck.app.budgets import Budget, envelope_limits
from quarterdeck.app.routing import TermsTable, in_force, terms_for
from quarterdeck.app.words import word
from quarterdeck.core import events as ev
from quarterdeck.core.admission import COUNTING, Conditions, admit, fallbacks
from quarterdeck.core.canonical import canonical, parse
from quarterdeck.core.commit import Charge, Commit, Key, NewRun, Record, record
from quarterdeck.core.context import estimate
from quarterdeck.core.contract import Caller, Envelope, EnvelopeLabels, RunContract, VersionSet, checked_key, checked_name
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.fairness import less_urgent
from quarterdeck.core.identity import ServiceIdentity
from quarterdeck.core.labels import NO_LABELS, Integrity, Labels, either
from quarterdeck.core.specs import AgentSpec, RouteSpec, ToolSpec, needed
from quarterdeck.core.tasks import AUTO, SIMPLE, STANDARD, cheapest, classify, program_of
from quarterdeck.core.vocabulary import AdmissionAnswer, Mode, Priority, Risk
from quarterdeck.core.windows import Lifetime, Pace, begun, is_period, lifetimes_of, paced, thread_account
from quarterdeck.ports.clock import Clock, Entropy

if TYPE_CHECKING:
    from quarterdeck.app.deck import Quarterdeck

KEY_TTL_US = 24 * 3_600 * 1_000_000
"""How long an idempotency key means the same run."""

SYNC_DEADLINE_MS = 15_000
"""The deadline of a ``sync`` run where nothing else is said: of one that is not handed off, since its caller waits for it."""


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
    thread_id: str | None = None,
    ordering_key: str | None = None,
    priority: str | None = None,
    mode: Mode | None = None,
    source: str = Integrity.TRUSTED,
) -> Envelope:
    """The envelope of what a caller says in words. Raises :class:`UsageError` for a budget that is none, or no caller's."""
    integrity = word(Integrity, source)
    return Envelope(
        intent,
        payload,
        caller=Caller(tenant, user),
        budget=(budget or Budget()).envelope(),
        idempotency_key=idempotency_key,
        correlation_id=correlation_id,
        thread_id=thread_id,
        ordering_key=ordering_key,
        priority=priority,
        mode=mode,
        labels=None if integrity is Integrity.TRUSTED else EnvelopeLabels(integrity),
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
        *,
        paces: Sequence[Pace] = (),
        lifetimes: Sequence[Lifetime] = (),
        classify: Callable[[str], str] = classify,
        costs: Callable[[str], int] = lambda _: 0,
        terms: TermsTable | None = None,
    ) -> None:
        self._terms = terms or {}
        self._classify = classify
        self._costs = costs
        self._paces = paces
        self._lifetimes = lifetimes
        self._routes = routes
        self._agents = agents
        self._clock = clock
        self._entropy = entropy
        self._versions = {name: _versions(agent, tools) for name, agent in agents.items()}
        self._services = {name: ServiceIdentity(deck, name).subject for name in agents}
        self._counting = frozenset(
            route.intent
            for route in routes.values()
            if any(each.on_budget in COUNTING for each in (route, *fallbacks(routes, route)))
        )

    def asks_accounts(self, intent: str) -> bool:
        """Whether the admission to this route depends on what its shared accounts have left."""
        return intent in self._counting

    def lifetimes(self, envelope: Envelope) -> tuple[str, ...]:
        """The accounts of the lifetimes that a run of this envelope would belong to now."""
        return tuple(lifetimes_of(self._lifetimes, envelope.caller.tenant, envelope.thread_id, self._clock.now_us()))

    def contract(
        self,
        envelope: Envelope,
        policy_version: str,
        budget_version: str,
        submitted_by: str = "",
        now: Conditions | None = None,
    ) -> tuple[RunContract, bytes]:
        """The contract and the canonical payload of a run, as things stand ``now`` (by default: nothing stands against it).

        Raises :class:`UsageError` or :class:`Refused` with a code; see :func:`quarterdeck.core.admission.admit`.
        """
        tenant = _tenant(envelope.caller.tenant)
        found = admit(self._routes, envelope.intent, tenant, envelope.mode, now or Conditions())
        route, mode = found.route, found.mode
        agent = self._agents[route.agent]
        payload = canonical_of("the payload", envelope.payload)
        run_id = new_run_id(self._clock, self._entropy) if envelope.run_id is None else checked_name("run", envelope.run_id)
        effective = in_force(route, agent, terms_for(self._terms, tenant, route.intent))
        limits = effective.limits.narrowed(envelope_limits(envelope.budget))
        handed_off = route.latency_ms is not None or found.answer is AdmissionAnswer.WAIT
        if mode is Mode.SYNC and limits.deadline_ms is None and not handed_off:
            limits = msgspec.structs.replace(limits, deadline_ms=SYNC_DEADLINE_MS)
        now_us = self._clock.now_us()
        ends_us = self._ends(tenant, envelope.thread_id, now or Conditions(), now_us, limits.deadline_ms)
        task_class, model = self._model(agent, route, tenant, effective.risk, payload, now or Conditions())
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
            autonomy=effective.autonomy,
            risk=effective.risk,
            mode=mode,
            version_set=msgspec.structs.replace(self._versions[agent.name], policy=policy_version, model=model),
            limits=limits,
            budget_policy_version=budget_version,
            policy_version=policy_version,
            allowed_tools=effective.tools,
            admitted_at_us=now_us,
            deadline_at_us=min(ends_us, default=None),
            idempotency_key=envelope.idempotency_key,
            ordering_key=None if envelope.ordering_key is None else checked_key("ordering_key", envelope.ordering_key),
            thread_id=None if envelope.thread_id is None else checked_key("thread_id", envelope.thread_id),
            priority=_priority(route, envelope),
            submitted_by=submitted_by,
            service=self._services[agent.name],
            requested=envelope.intent if found.answer is AdmissionAnswer.ELSEWHERE else "",
            answer=found.answer,
            admission=found.code,
            task_class=task_class,
            program=program_of(agent.name, task_class, model) if task_class else "",
            labels=_labels(route, envelope),
        )
        return contract, payload

    def _ends(self, tenant: str, thread_id: str | None, now: Conditions, now_us: int, deadline_ms: int | None) -> list[int]:
        """When a run has to end by its own deadline and by each lifetime of its thread; raises :class:`Refused` (``budget.lifetime``) if
        one of these is over.
        """
        found = [] if deadline_ms is None else [now_us + deadline_ms * 1_000]
        for account, lasts_us in lifetimes_of(self._lifetimes, tenant, thread_id, now_us).items():
            found.append(now.lifetimes.get(account, now_us + lasts_us))
            if found[-1] <= now_us:
                said = f"the runs of {account} may last {lasts_us // 1_000_000} s in all, and that is over; begin another thread"
                raise Refused("budget.lifetime", said)
        return found

    def _model(
        self, agent: AgentSpec, route: RouteSpec, tenant: str, risk: Risk, payload: bytes, now: Conditions
    ) -> tuple[str, str]:
        """The class of the task and the model that takes it; no class where the agent has one model for all."""
        if not agent.tiers:
            return "", agent.model
        task_class = route.task_class
        if task_class == AUTO:
            value = msgspec.json.decode(payload)
            task_class = self._classify(value if isinstance(value, str) else payload.decode())
        if task_class == SIMPLE and risk is Risk.HIGH:
            task_class = STANDARD
        blocked = now.controls.blocked(tenant, route.intent, now.now_us)
        return cheapest(agent, task_class, self._costs, now.unavailable | blocked)

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
            contract.ordering_key,
            needed(contract.route, contract.agent, contract.version_set.program),
        )
        key = None
        if envelope.idempotency_key is not None:
            body = msgspec.structs.replace(envelope, run_id=None, idempotency_key=None, correlation_id=None, payload=None)
            digest = hashlib.sha256(canonical(_said(body)) + payload).hexdigest()
            name = checked_key("idempotency_key", envelope.idempotency_key)
            key = Key(contract.tenant, name, digest, contract.admitted_at_us + KEY_TTL_US)
        admitted = record(ev.RunAdmitted(contract.admitted_at_us, contract, tokens), payload)
        records: tuple[Record, ...] = (admitted,)
        charges = self._paced(contract)
        if charges:
            moves = tuple([charge.move for charge in charges])
            records += (record(ev.BudgetMoved(contract.admitted_at_us, moves)),)
        at_us = contract.admitted_at_us
        if contract.parent_run_id is None:
            lasts = lifetimes_of(self._lifetimes, contract.tenant, contract.thread_id, at_us)
            charges += begun({account: at_us + lasts_us for account, lasts_us in lasts.items()})
        return Commit(contract.run_id, 0, 0, incarnation, records, at_us, charges=charges, new=new, key=key)

    def _paced(self, contract: RunContract) -> tuple[Charge, ...]:
        if not self._paces or contract.parent_run_id is not None:
            return ()
        above = [f"agent:{contract.agent}", f"route:{contract.route}", f"tenant:{contract.tenant}", "all"]
        if contract.thread_id is not None:
            above.insert(0, thread_account(contract.tenant, contract.thread_id))
        return paced(self._paces, above, contract.admitted_at_us)


def _tenant(name: str) -> str:
    """A tenant's name, unless its account would be called like one of another tenant's."""
    if is_period(checked_name("tenant", name)):
        raise UsageError("name.invalid", f"tenant {name!r} ends like the account of a period does; use another name")
    return name


def admission_of(deck: Quarterdeck, clock: Clock, entropy: Entropy) -> Admission:
    """The admission of a deck."""

    def costs(model: str) -> int:
        price = deck.models[model].price
        return price.input_microusd_per_mtok + price.output_microusd_per_mtok

    specs = {name: tool.spec for name, tool in deck.tools.items()}
    return Admission(
        deck.name,
        deck.routes,
        deck.agents,
        specs,
        clock,
        entropy,
        paces=deck.paces,
        lifetimes=deck.lifetimes,
        classify=deck.classifier,
        costs=costs,
        terms=deck.terms,
    )


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


def _said(envelope: Envelope) -> dict[str, object]:
    """The fields of an envelope as the digest of an idempotency key covers them. Fields that are newer than stored digests are left out
    where nobody has set them, so that a key means what it meant before they were there.
    """
    fields: dict[str, object] = msgspec.to_builtins(envelope)
    return {name: value for name, value in fields.items() if value is not None or name not in _NEWER}


_NEWER = frozenset({"labels"})


def _labels(route: RouteSpec, envelope: Envelope) -> Labels | None:
    """What a run begins with having read: as the route says of payloads, joined with what the caller says of this one."""
    said = envelope.labels
    labels = None if said is None else Labels(said.integrity, said.confidentiality)
    return either(route.payload, None if labels == NO_LABELS else labels)


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
