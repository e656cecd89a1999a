"""Validation before activation: what Cedar's strict validator finds, and what it lets pass although it cannot be meant.

Cedar types each policy once per action that its scope allows. Since ``Tool::"x"`` only ever comes with
``Action::"tool:x"``, a policy that names a tool as its resource is validated as if it also named that action; its
meaning is the same, and ``context.args`` then has that tool's type.

Beyond Cedar: names that the manifest does not have, attributes that exist nowhere the policy applies (``has`` on one
is silently false), comparing a closed word such as ``resource.effect`` with another word, and scopes that nothing can
match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import assert_never

import cedarpy
from cedarpy import pst

from quarterdeck.policy.escape import escaped
from quarterdeck.policy.reads import Path, path_of, reads_of
from quarterdeck.policy.schema import (
    ARGUMENTS,
    CLOSED_WORDS,
    CONTEXT,
    NOTHING,
    PRINCIPAL,
    TOOL,
    PolicyManifest,
    actions,
)  # fmt: skip
from quarterdeck.policy.shapes import Field, Record
from quarterdeck.policy.source import Policy, Problem

_PREFIX = re.compile(r"^for policy `[^`]*`, ")
_ACTION = pst.EntityType("Action")


@dataclass(frozen=True, slots=True)
class Names:
    """What may be named, by entity type. Destinations are free."""

    known: Mapping[str, Sequence[str]]
    actions: Mapping[str, str]
    words: Mapping[tuple[str, ...], frozenset[str]]

    @classmethod
    def of(cls, manifest: PolicyManifest) -> Names:
        """The names of a manifest."""
        tools, found = tuple(tool.name for tool in manifest.tools), actions(manifest)
        known = {"Agent": manifest.agents, "Tool": tools, "Model": manifest.models, "Action": ("tool", *found)}
        words = dict(CLOSED_WORDS)
        for part in ("principal", "context"):
            for name, listed in (("route", manifest.routes), ("tenant", manifest.tenants)):
                if listed:
                    words[part, name] = frozenset(listed)
        return cls(known, found, words)


def check_policies(
    policies: Sequence[Policy], names: Names, shapes: Mapping[str, Record], schema: cedarpy.Schema
) -> list[Problem]:
    """Every problem of a parsed set. ``shapes`` holds the visible arguments by tool name."""
    problems: list[Problem] = []
    valid: list[tuple[Policy, pst.Template]] = []
    for policy in policies:
        found = list(_unknown_names(policy.node, names))
        applies = _applicable(policy.node, names)
        if not found and not applies:
            found = ["can never match: no action of its scope has such a resource"]
        if not found:
            found = [*_unknown_attributes(policy.node, applies, shapes), *_wrong_words(policy.node, names.words)]
        problems.extend(Problem(policy.place, message) for message in found)
        if not found:
            valid.append((policy, _narrowed(policy.node, applies)))
    return [*problems, *_validated(valid, schema)]


def _validated(policies: Sequence[tuple[Policy, pst.Template]], schema: cedarpy.Schema) -> Iterator[Problem]:
    """Cedar's own findings, in one call: policies are numbered by their order in the text."""
    if not policies:
        return
    result = cedarpy.validate_policies("\n".join(rendered(node) for _, node in policies), schema)
    by_id = {f"policy{number}": policy.place for number, (policy, _) in enumerate(policies)}
    seen: set[Problem] = set()
    for error in result.errors:
        message = _PREFIX.sub("", error.error)
        if "args." in message and "not found" in message:
            message += "; name the tool in the scope, or ask first with `context.args has …`"
        problem = Problem(by_id.get(error.policy_id, ""), message)
        if problem not in seen:
            seen.add(problem)
            yield problem
    if not result.validation_passed and not seen:
        yield Problem("", "Cedar's validator refused the set and did not say why")


def rendered(node: pst.Template) -> str:
    """One policy as canonical Cedar text."""
    return str(handle([node]))


def handle(nodes: Iterable[pst.Template]) -> cedarpy.PolicySet:
    """Policies compiled for evaluation, under their own ids."""
    return cedarpy.PolicySet.from_pst(pst.PolicySet({}, {node.id: node for node in nodes}, ()))


def _unknown_names(node: pst.Template, names: Names) -> Iterator[str]:
    for uid in sorted(pst.entity_uids(node), key=str):
        known = names.known.get(str(uid.type))
        if known is not None and uid.id not in known:
            yield f"names {uid}, which does not exist; {_hint(uid.id, known)}"
    for part in _parts(node):
        match part:
            case pst.ActionEq(pst.EntityUid(pst.EntityType("Action"), "tool")):
                yield 'Action::"tool" is the group of all tool calls: write `action in Action::"tool"`'
            case pst.BinaryOp(op="eq" | "not_eq") if _group(part.left) or _group(part.right):
                yield 'Action::"tool" is the group of all tool calls: write `action in Action::"tool"`'
            case pst.GetAttr(base=pst.EntityLit(uid)) | pst.HasAttr(base=pst.EntityLit(uid)):
                yield f"reads an attribute of {uid}; only those of `principal` and `resource` are known"
            case _:
                pass


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known := sorted(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known[:10]) or 'none'}"


def _group(expr: pst.Expr) -> bool:
    return isinstance(expr, pst.EntityLit) and expr.value == pst.EntityUid(_ACTION, "tool")


def _parts(node: object) -> Iterator[object]:
    """Every node of a syntax tree."""
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            stack.extend(part.values())
        elif isinstance(part, tuple):
            stack.extend(part)
        elif is_dataclass(part) and not isinstance(part, type):
            yield part
            stack.extend(getattr(part, each.name) for each in fields(part))


def _applicable(node: pst.Template, names: Names) -> dict[str, str]:
    """The actions that the scope allows, with the entity type of their resource."""
    uid = named(node.resource)
    only = f"tool:{uid.id}" if uid is not None and str(uid.type) == "Tool" else None
    candidates = names.actions if only is None else {only: "Tool"}
    return {
        action: kind
        for action, kind in candidates.items()
        if action_covered(node.action, action) and _kind_possible(node.resource, kind)
    }


def action_covered(scope: pst.ActionConstraint, action: str) -> bool:
    """Whether the scope covers the action of that name, by itself or through the group ``tool``."""
    match scope:
        case pst.ScopeAny():
            return True
        case pst.ActionEq(uid):
            return uid.type == _ACTION and uid.id == action
        case pst.ActionIn(uids):
            own = {action, "tool"} if action.startswith("tool:") else {action}
            return any(uid.type == _ACTION and uid.id in own for uid in uids)
        case _:
            assert_never(scope)


def _kind_possible(scope: pst.PrincipalOrResourceConstraint, kind: str) -> bool:
    uid = named(scope)
    typed = not isinstance(scope, pst.ScopeIs | pst.ScopeIsIn) or str(scope.entity_type) == kind
    return typed and (uid is None or str(uid.type) == kind)


def named(scope: pst.PrincipalOrResourceConstraint) -> pst.EntityUid | None:
    """The entity that a scope names; nothing for one that names none."""
    if isinstance(scope, pst.ScopeEq | pst.ScopeIn | pst.ScopeIsIn) and isinstance(scope.entity, pst.EntityUid):
        return scope.entity
    return None


def _narrowed(node: pst.Template, applies: Mapping[str, str]) -> pst.Template:
    uid = named(node.resource)
    if uid is None or str(uid.type) != "Tool":
        return node
    return replace(node, action=pst.ActionIn(tuple(pst.EntityUid(_ACTION, action) for action in applies)))


def _unknown_attributes(node: pst.Template, applies: Mapping[str, str], shapes: Mapping[str, Record]) -> Iterator[str]:
    worlds = [_world(action, kind, shapes) for action, kind in applies.items()]
    for path in sorted(reads_of(node).paths):
        if not any(_leads(world, path) for world in worlds):
            last = {escaped(field.name) for world in worlds for field in _fields_at(world, path[:-1])}
            yield f"reads {'.'.join(path)}, which no action of its scope makes visible; {_hint(path[-1], last)}"


def _world(action: str, kind: str, shapes: Mapping[str, Record]) -> Record:
    args = shapes[action.removeprefix("tool:")] if kind == "Tool" else NOTHING
    context = Record((*CONTEXT.fields, Field(ARGUMENTS, args, required=True)))
    roots = {"principal": PRINCIPAL, "resource": TOOL if kind == "Tool" else NOTHING, "context": context}
    return Record(tuple(Field(name, shape, required=True) for name, shape in roots.items()))


def _fields_at(world: Record, path: Path) -> Iterable[Field]:
    for name in path:
        inner = next((field.shape for field in world.fields if escaped(field.name) == name), None)
        if not isinstance(inner, Record):
            return ()
        world = inner
    return world.fields


def _leads(world: Record, path: Path) -> bool:
    return any(escaped(field.name) == path[-1] for field in _fields_at(world, path[:-1]))


def _wrong_words(node: pst.Template, words: Mapping[tuple[str, ...], frozenset[str]]) -> Iterator[str]:
    for part in _parts(node):
        match part:
            case pst.BinaryOp(op="eq" | "not_eq"):
                pairs = [(part.left, part.right), (part.right, part.left)]
            case pst.BinaryOp(op="contains", left=pst.Set(elements)):
                pairs = [(part.right, each) for each in elements]
            case _:
                continue
        for read, word in pairs:
            allowed = words.get(path_of(read) or ())
            if allowed is not None and isinstance(word, pst.StringLit) and word.value not in allowed:
                known = ", ".join(sorted(allowed))
                yield f"compares {'.'.join(path_of(read) or ())} with {word.value!r}; it is one of {known}"
