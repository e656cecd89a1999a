"""Trying policies out: a candidate set against cases, and against what was proposed in recorded runs.

A *backtest* judges the recorded proposals of the last runs twice, under the set in force and under a candidate, with the attributes that
they had then (arguments, spending, labels), and tells where the two differ. Nothing is performed, asked or written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.wiring import check_deck, policy_of
from quarterdeck.core import events as ev
from quarterdeck.core.errors import Corrupt, UsageError
from quarterdeck.core.fold import fold, start
from quarterdeck.core.origins import Origins, number
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.sinks import Role, sinks_of
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import ProposalKind
from quarterdeck.engine.transcript import Transcript
from quarterdeck.engine.workflows.recording import Recording
from quarterdeck.gate.gate import RESOURCE_KINDS, Gate
from quarterdeck.gate.proposals import Catalogue
from quarterdeck.policy import CedarEngine
from quarterdeck.ports.policy import PolicyRequest
from quarterdeck.ports.store import Insights

MAX_BACKTEST = 10_000
"""The most runs that one backtest reads."""
MAX_CHANGES = 200
"""The most differences that a backtest lists one by one; all are counted."""


def candidate_texts(path: Path) -> dict[str, str]:
    """The policies of a file or of a folder; raises :class:`UsageError` (``policy.none``) if there are none."""
    files = sorted(path.glob("*.cedar")) if path.is_dir() else [path]
    try:
        found = {file.name: file.read_text("utf-8") for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("policy.none", f"{path} cannot be read: {error}") from None
    if not found:
        raise UsageError("policy.none", f"there are no policies in {path}; a folder must hold *.cedar files")
    return found


def engine_of(deck: Quarterdeck, texts: Mapping[str, str] | None = None) -> CedarEngine:
    """The engine of a candidate (or of the deck's own set), validated against the deck. Raises ``policy.invalid`` with every problem."""
    check_deck(deck)
    return policy_of(deck, texts)


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One case of a policy test: who proposes what, and what is expected. ``context`` changes some of the usual attributes."""

    name: str
    agent: str
    expect: str
    tool: str = ""
    model: str = ""
    action: str = ""
    arguments: dict[str, object] = {}
    context: dict[str, object] = {}
    reasons: tuple[str, ...] | None = None


class Checked(msgspec.Struct, frozen=True):
    """How one case went."""

    name: str
    passed: bool
    expected: str
    outcome: str
    reasons: tuple[str, ...]
    policies: tuple[str, ...]


def read_cases(path: Path) -> list[Case]:
    """The cases of a JSON file. Raises :class:`UsageError` (``policy.cases``) for what is none."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Case])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            "policy.cases", f"{path}: {error}; a file of cases is a list of objects with name, agent, expect"
        ) from None
    for case in found:
        if sum(map(bool, (case.tool, case.model, case.action))) != 1:
            raise UsageError("policy.cases", f"{path}: case {case.name!r} names one of tool, model and action")
    return found


def run_cases(engine: CedarEngine, deck: Quarterdeck, cases: Sequence[Case]) -> list[Checked]:
    """Judge every case."""
    found = []
    for case in cases:
        explained = engine.explain(_request(deck, case))
        verdict = explained.verdict
        passed = verdict.outcome == case.expect and (case.reasons is None or set(case.reasons) == set(verdict.reasons))
        found.append(Checked(case.name, passed, case.expect, verdict.outcome, verdict.reasons, explained.policies))
    return found


def _request(deck: Quarterdeck, case: Case) -> PolicyRequest:
    agent = deck.agents.get(case.agent)
    standing = {
        "tenant": "default",
        "route": case.agent,
        "autonomy": agent.autonomy.value if agent is not None else "bounded_autonomous",
        "risk": agent.risk.value if agent is not None else "low",
    }
    usual: dict[str, object] = {
        **standing,
        "user": "anonymous",
        "mode": "async_job",
        "turn": 0,
        "spent": {"tokens": 0, "tool_calls": 0, "cost_microusd": 0},
        "labels": {"untrusted": False, "sensitive": False, "crossing": False, "arguments": []},
    }
    for name, value in case.context.items():
        inner = usual.get(name)
        usual[name] = inner | value if isinstance(inner, dict) and isinstance(value, dict) else value
    kind = ProposalKind.TOOL if case.tool else ProposalKind.MODEL if case.model else ProposalKind(case.action)
    tool = deck.tools.get(case.tool)
    attributes: dict[str, object] = {}
    if tool is not None:
        spec = tool.spec
        attributes = {"effect": spec.effect.value, "permissions": list(spec.permissions), "cost_microusd": spec.cost_microusd}
    principal = {name: usual[name] for name in standing}
    resource = case.tool or case.model or "caller"
    return PolicyRequest(case.agent, principal, kind.value, RESOURCE_KINDS[kind], resource, attributes, usual, case.arguments)


class Change(msgspec.Struct, frozen=True):
    """One recorded proposal that a candidate judges differently. ``amounts`` are those of its arguments that are amounts of money."""

    run_id: str
    call: str
    name: str
    before: str
    after: str
    reasons: tuple[str, ...]
    cost_microusd: int = 0
    amounts: dict[str, str] = {}


class Backtest(msgspec.Struct, frozen=True):
    """What a candidate would have changed. ``newly`` counts by what they become, ``cost_microusd`` is what those could have cost."""

    runs: int
    proposals: int
    unreadable: int
    newly: dict[str, int]
    cost_microusd: dict[str, int]
    amounts: dict[str, dict[str, str]]
    changes: tuple[Change, ...]
    version_before: str
    version_after: str


def backtest(insights: Insights, deck: Quarterdeck, candidate: CedarEngine, *, last: int) -> Backtest:
    """Judge the proposals of the last runs under the deck's set and under a candidate. Reads only; raises nothing for runs whose
    contents were erased or that other tools than today's took part in: they count as unreadable.
    """
    before = Gate(Catalogue(deck.tools), engine_of(deck), lambda contract: (), lambda: 0, tuple(deck.trusted))
    after = Gate(before.catalogue, candidate, lambda contract: (), lambda: 0)
    changes: list[Change] = []
    newly: Counter[str] = Counter()
    cost: Counter[str] = Counter()
    amounts: dict[str, dict[str, Decimal]] = {}
    runs = proposals = unreadable = 0
    for run_id in _newest(insights, min(last, MAX_BACKTEST)):
        runs += 1
        try:
            recorded = list(_recorded(insights, deck, before, run_id))
        except (Corrupt, KeyError, msgspec.MsgspecError):
            unreadable += 1
            continue
        for event, request, proposal in recorded:
            proposals += 1
            old, new = before.policy.judge(request), after.policy.judge(request)
            if old.outcome == new.outcome:
                continue
            spec = before.catalogue.spec(event.name) if event.proposal is ProposalKind.TOOL else None
            price = event.reserve.get("cost_microusd", spec.cost_microusd if spec is not None else 0)
            money = _amounts(before, proposal)
            newly[new.outcome] += 1
            cost[new.outcome] += price
            for name, value in money.items():
                total = amounts.setdefault(new.outcome, {})
                total[name] = total.get(name, Decimal(0)) + value
            if len(changes) < MAX_CHANGES:
                shown = {name: str(value) for name, value in money.items()}
                changes.append(Change(run_id, event.call, event.name, old.outcome, new.outcome, new.reasons, price, shown))
    totals = {outcome: {name: str(total) for name, total in each.items()} for outcome, each in amounts.items()}
    return Backtest(
        runs,
        proposals,
        unreadable,
        dict(newly),
        dict(cost),
        totals,
        tuple(changes),
        before.policy.version,
        candidate.version,
    )


def _newest(insights: Insights, last: int) -> Iterator[str]:
    before: str | None = None
    while last > 0 and (page := insights.runs(before=before, limit=min(last, 500))):
        yield from [row.run_id for row in page]
        before, last = page[-1].run_id, last - len(page)


def _recorded(
    insights: Insights, deck: Quarterdeck, gate: Gate, run_id: str
) -> Iterator[tuple[ev.GateDecided, PolicyRequest, Proposal]]:
    """Each proposal of a run, once, with what the policies were asked about it then."""
    state: RunState | None = None
    transcript = Transcript()
    seen: set[str] = set()
    after = 0
    while page := insights.events(run_id, after):
        for stored in page:
            after, event = stored.seq, ev.decode(stored.body)
            if state is None:
                state = start(event)
                transcript = Recording() if state.contract.agent in deck.workflows else transcript
                origins = Origins(gate.trusted, tainted=state.labels.untrusted)
                if (agent := deck.agents.get(state.contract.agent)) is not None:
                    origins.ask(agent.instructions)
                transcript.watch(origins, gate.catalogue.spec)
            else:
                if isinstance(event, ev.GateDecided) and event.call not in seen and event.name:
                    seen.add(event.call)
                    proposal = _proposal(gate, state, transcript, event)
                    tool = gate.catalogue.spec(event.name) if event.proposal is ProposalKind.TOOL else None
                    crossed = gate.crossing(proposal, state, tool, transcript.origins)
                    yield event, gate.request(proposal, state, gate.standing(state.contract), tool, crossed), proposal
                fold(state, event)
            transcript.apply(event, stored.payload)


def _proposal(gate: Gate, state: RunState, transcript: Transcript, event: ev.GateDecided) -> Proposal:
    if event.proposal is ProposalKind.TOOL:
        return gate.catalogue.propose(state.contract, event.call, event.name, transcript.raw(event.call), 1)
    return Proposal(event.proposal, event.call, event.name, event.digest, b"{}", {}, event.reserve)


def _amounts(gate: Gate, proposal: Proposal) -> dict[str, Decimal]:
    spec = gate.catalogue.spec(proposal.name) if proposal.kind is ProposalKind.TOOL else None
    if spec is None or not isinstance(proposal.value, dict):
        return {}
    named = [name for name, role in sinks_of(spec).roles.items() if role is Role.AMOUNT]
    found = {name: number(proposal.value.get(name)) for name in named}
    return {name: value for name, value in found.items() if value is not None}
