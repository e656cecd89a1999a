"""What in a deck will break at run time, found by reading its definitions: ``quarterdeck check``.

Nothing is run and no store is opened. A finding says what happens, where, and how to mend it; an ``error`` will happen, a ``warning`` may.
What a deck cannot even start with is found as well, as one error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from quarterdeck.app.budgets import overlaid
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.purity import impure
from quarterdeck.app.wiring import check_deck, policy_of
from quarterdeck.core.errors import UsageError
from quarterdeck.core.specs import AgentSpec, RouteSpec, ToolSpec
from quarterdeck.core.vocabulary import AUTONOMY_RULES, EffectClass, Mode, Ruling


class Severity(StrEnum):
    """How sure it is that it breaks."""

    ERROR = "error"
    WARNING = "warning"


class Flaw(msgspec.Struct, frozen=True):
    """One thing that breaks: a stable code, where it is, what happens, and how to mend it."""

    code: str
    severity: Severity
    place: str
    what: str
    mend: str


def flaws(deck: Quarterdeck) -> list[Flaw]:
    """Every finding of a deck, errors first."""
    try:
        check_deck(deck)
    except UsageError as error:
        return [_error("deck.invalid", f"deck {deck.name}", error.message, "a runtime refuses to start with it; see the message")]
    found = [*_policies(deck), *_effects(deck), *_evidence(deck), *_programs(deck), *_limits(deck), *_people(deck)]
    return sorted(found, key=lambda flaw: (flaw.severity is not Severity.ERROR, flaw.place, flaw.code))


def _effects(deck: Quarterdeck) -> Iterator[Flaw]:
    undoing = set(deck.compensations.values())
    in_workflows = {tool for name in deck.workflows for tool in deck.agents[name].tools}
    for name, tool in sorted(deck.tools.items()):
        spec = tool.spec
        if spec.effect is EffectClass.READ:
            continue
        if not spec.idempotent and not spec.reconcilable:
            yield _warning(
                "tool.no_key",
                f"tool {name}",
                "after a crash in the middle of it, or a vague error, nobody knows whether it happened, and a person has to look",
                "declare idempotent=True and pass ctx.idempotency_key on, or give it reconcile=",
            )
        if name in in_workflows and name not in deck.compensations and name not in undoing:
            yield _warning(
                "tool.no_undo",
                f"tool {name}",
                "a workflow calls it, and a saga that fails after it has nothing that takes it back",
                "give it compensate=, or leave it out of the workflow's tools if it is none of its steps",
            )
        if spec.idempotent and spec.timeout_s >= spec.idempotent_for_s:
            yield _error(
                "tool.key_forgotten",
                f"tool {name}",
                f"one attempt may take {spec.timeout_s:g} s, but its key is known for {spec.idempotent_for_s} s only: it is never repeated",
                "make timeout= shorter than idempotent_for=",
            )


def _evidence(deck: Quarterdeck) -> Iterator[Flaw]:
    for name, agent in sorted(deck.agents.items()):
        for tool in agent.tools:
            for needed in deck.tools[tool].spec.evidence:
                if needed not in agent.tools:
                    yield _error(
                        "evidence.impossible",
                        f"agent {name}",
                        f"{tool} needs evidence from {needed}, which this program may not call: it is always denied",
                        f"add {needed} to the tools of {name}, or take it out of evidence=",
                    )


def _programs(deck: Quarterdeck) -> Iterator[Flaw]:
    led_to = {route.agent for route in deck.routes.values()}
    for name in sorted(deck.agents.keys() - led_to):
        yield _warning(
            "program.unreachable", f"program {name}", "no route leads to it: it never runs", "give it a route, or remove it"
        )
    for intent, route in sorted(deck.routes.items()):
        agent = deck.agents[route.agent]
        if not route.tenants or not route.modes:
            what = "tenants" if not route.tenants else "modes"
            yield _error(
                "route.unreachable", f"route {intent}", f"it has no {what}: nothing is ever admitted", f"name its {what}"
            )
        unused = [tool for tool in route.tools or () if tool not in agent.tools]
        if unused:
            yield _warning(
                "route.unused_tool",
                f"route {intent}",
                f"it allows {', '.join(unused)}, which its program cannot name",
                "a route narrows the tools of its program; add them there, or remove them here",
            )
        yield from _denied_tools(deck, route, agent)
    for name, function in sorted(deck.workflows.items()):
        for call, line in impure(function):
            yield _error(
                "workflow.impure",
                f"workflow {name}, line {line}",
                f"{call} gives something else when the workflow is executed again, which is then a divergence or a doubled effect",
                "use ctx.now, ctx.random, ctx.uuid, ctx.sleep, or do it in ctx.step or a tool",
            )


def _denied_tools(deck: Quarterdeck, route: RouteSpec, agent: AgentSpec) -> Iterator[Flaw]:
    autonomy = route.autonomy or agent.autonomy
    denied = [tool for tool in _tools(route, agent) if AUTONOMY_RULES[autonomy][deck.tools[tool].spec.effect] is Ruling.DENY]
    if denied:
        yield _warning(
            "autonomy.denies",
            f"route {route.intent}",
            f"with autonomy {autonomy.value} these tools are always denied: {', '.join(denied)}",
            "raise the autonomy, or take the tools away, so that the model does not try",
        )
    if route.modes == (Mode.SYNC,):
        final = [tool for tool in _tools(route, agent) if deck.tools[tool].spec.effect is EffectClass.IRREVERSIBLE]
        if final:
            what = f"a sync run does nothing irreversible: {', '.join(final)} is always denied"
            yield _warning("mode.denies", f"route {route.intent}", what, "allow another mode as well")


def _limits(deck: Quarterdeck) -> Iterator[Flaw]:
    for intent, route in sorted(deck.routes.items()):
        agent = deck.agents[route.agent]
        limits, place = overlaid(agent.limits, route.limits), f"route {intent}"
        if agent.name not in deck.workflows:
            if limits.tokens is not None and limits.tokens <= agent.max_output_tokens:
                what = f"{limits.tokens} tokens in all do not hold one answer of {agent.max_output_tokens}: no model is ever called whole"
                yield _error("limit.impossible", place, what, "raise tokens, or lower max_output_tokens")
            if limits.context is not None and limits.context <= agent.max_output_tokens:
                what = f"a context of {limits.context} tokens leaves no room beside the {agent.max_output_tokens} of an answer"
                yield _error("limit.impossible", place, what, "raise context, or lower max_output_tokens")
            if 0 in (limits.turns, limits.model_calls):
                yield _error(
                    "limit.impossible", place, "without a turn or a model call nothing can be done", "allow at least one"
                )
        for name in _tools(route, agent):
            yield from _too_dear(deck.tools[name].spec, limits.cost_microusd, limits.deadline_ms, place)
        for account in (f"route:{intent}", "all"):
            bound = deck.accounts[account].cost_microusd if account in deck.accounts else None
            if bound is not None and limits.cost_microusd is not None and bound < limits.cost_microusd:
                what = f"one run may spend more than the whole account {account}: the first one can stop all others"
                yield _warning("limit.wider_than_account", place, what, "lower the route's budget, or raise the account's")


def _too_dear(tool: ToolSpec, cost_microusd: int | None, deadline_ms: int | None, place: str) -> Iterator[Flaw]:
    if cost_microusd is not None and tool.cost_microusd > cost_microusd:
        what = f"one call of {tool.name} may cost {tool.cost_microusd} micro-dollars, the whole run {cost_microusd}: it is always denied"
        yield _error("limit.impossible", place, what, "raise the budget, or lower the tool's cost=")
    if deadline_ms is not None and tool.timeout_s * 1_000 > deadline_ms:
        what = f"one attempt of {tool.name} may take {tool.timeout_s:g} s, the whole run {deadline_ms / 1_000:g} s"
        yield _warning("tool.timeout", place, what, "shorten the tool's timeout=, or lengthen the deadline")


def _people(deck: Quarterdeck) -> Iterator[Flaw]:
    for intent, route in sorted(deck.routes.items()):
        agent, place = deck.agents[route.agent], f"route {intent}"
        autonomy = route.autonomy or agent.autonomy
        asks = [tool for tool in _tools(route, agent) if AUTONOMY_RULES[autonomy][deck.tools[tool].spec.effect] is Ruling.ASK]
        if asks and route.owner == "unowned":
            yield _warning(
                "approval.no_owner",
                place,
                f"{', '.join(asks)} waits for a person, and nobody owns the route: it waits until it is denied",
                "declare the route with owner=",
            )
        if route.escalate_after_s is not None and route.escalate_after_s >= route.approval_timeout_s:
            yield _error(
                "approval.never_escalates",
                place,
                f"an approval ends after {route.approval_timeout_s} s; the next owner would have it after {route.escalate_after_s} s",
                "make escalate_after= shorter than approval_timeout=",
            )


_NAMED_ROUTE = re.compile(r'(?:context|principal)\.route\s*==\s*"([^"]*)"')
_PERMISSION = re.compile(r'resource\.permissions\.contains\(\s*"([^"]*)"\s*\)')
_NEVER = re.compile(r"\bwhen\s*\{\s*false\s*\}|\bunless\s*\{\s*true\s*\}")


def _policies(deck: Quarterdeck) -> Iterator[Flaw]:
    try:
        policy_of(deck)
    except UsageError as error:
        yield _error("policy.invalid", "policies", error.message, "a runtime refuses to start with it; mend the policy")
    permissions = {permission for tool in deck.tools.values() for permission in tool.spec.permissions}
    for name, text in sorted(deck.policies.items()):
        code = re.sub(r"//[^\n]*", "", text)
        never = [f"no route is called {found!r}" for found in _NAMED_ROUTE.findall(code) if found not in deck.routes]
        never += [f"no tool has the permission {found!r}" for found in _PERMISSION.findall(code) if found not in permissions]
        never += ["its condition is never true" for _ in _NEVER.findall(code)]
        for why in dict.fromkeys(never):
            yield _warning(
                "policy.never", f"policies {name}", f"a policy can never match: {why}", "mend the name, or remove the policy"
            )


def _tools(route: RouteSpec, agent: AgentSpec) -> list[str]:
    return [tool for tool in agent.tools if route.tools is None or tool in route.tools]


def _error(code: str, place: str, what: str, mend: str) -> Flaw:
    return Flaw(code, Severity.ERROR, place, what, mend)


def _warning(code: str, place: str, what: str, mend: str) -> Flaw:
    return Flaw(code, Severity.WARNING, place, what, mend)
