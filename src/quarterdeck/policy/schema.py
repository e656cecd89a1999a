"""What policies may name: the manifest, and the Cedar schema made from it.

Each tool is its own action (``Action::"tool:issue_refund"``) in the group ``Action::"tool"``, because Cedar types the
context by action and the arguments of two tools have nothing in common. A tool call always pairs
``Action::"tool:<name>"`` with ``Tool::"<name>"``, so naming either in a policy's scope is enough (see ``check``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

import msgspec

from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import Autonomy, EffectClass, Mode, ProposalKind, Risk
from quarterdeck.policy.escape import escaped
from quarterdeck.policy.shapes import MAX_DEPTH, Field, Many, Number, Record, Shape, Text, Truth, Whole


class PolicyTool(msgspec.Struct, frozen=True):
    """A tool as policies know it. ``arguments`` is the JSON Schema of its arguments, as an object."""

    name: str
    effect: EffectClass
    arguments: Mapping[str, object] = {}

    @classmethod
    def of(cls, spec: ToolSpec) -> PolicyTool:
        """The same tool, from its specification."""
        return cls(spec.name, spec.effect, msgspec.json.decode(spec.input_schema, type=dict[str, object]))


class PolicyManifest(msgspec.Struct, frozen=True):
    """Everything that a request may name. ``agents`` are all programs that propose; a name that is not here is
    denied. ``routes`` and ``tenants``, where there are any, are all that policies may compare with.
    """

    tools: tuple[PolicyTool, ...] = ()
    agents: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()


def _texts(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, Text(), required=True) for name in names)


PRINCIPAL: Final = Record(_texts("tenant", "autonomy", "risk", "route"))
TOOL: Final = Record(
    (
        *_texts("effect"),
        Field("permissions", Many(Text()), required=True),
        Field("cost_microusd", Whole(), required=True),
    )
)
NOTHING: Final = Record(())
_SPENT = Record(tuple(Field(name, Whole(), required=True) for name in ("tokens", "tool_calls", "cost_microusd")))
_LABELS = Record(
    (
        *(Field(name, Truth(), required=True) for name in ("untrusted", "sensitive", "crossing")),
        Field("arguments", Many(Text()), required=True),
    )
)
CONTEXT: Final = Record(
    (
        *_texts("tenant", "user", "route", "autonomy", "risk", "mode"),
        Field("turn", Whole(), required=True),
        Field("spent", _SPENT, required=True),
        Field("labels", _LABELS, required=True),
    )
)
ARGUMENTS: Final = "args"
"""The attribute of the context that holds a tool's arguments."""

KIND_OF_RESOURCE: Final[Mapping[str, str]] = {
    **{kind.value: "Destination" for kind in ProposalKind},
    ProposalKind.TOOL.value: "Tool",
    ProposalKind.MODEL.value: "Model",
}
"""The entity type of the resource, by action."""

CLOSED_WORDS: Final[Mapping[tuple[str, ...], frozenset[str]]] = {
    ("principal", "autonomy"): frozenset(Autonomy),
    ("principal", "risk"): frozenset(Risk),
    ("context", "autonomy"): frozenset(Autonomy),
    ("context", "risk"): frozenset(Risk),
    ("context", "mode"): frozenset(Mode),
    ("resource", "effect"): frozenset(EffectClass),
}
"""Attributes that only ever hold one of these words; comparing one with another word is a mistake."""


def action_of(kind: str, resource: str) -> str:
    """The name of the Cedar action.

    >>> action_of("tool", "issue_refund"), action_of("reply", "customer")
    ('tool:issue_refund', 'reply')
    """
    return f"tool:{resource}" if kind == "tool" else kind


def actions(manifest: PolicyManifest) -> dict[str, str]:
    """Every action that a request can have (so not the group ``tool``), with the entity type of its resource."""
    found = {kind: entity for kind, entity in KIND_OF_RESOURCE.items() if kind != "tool"}
    return {**{action_of("tool", tool.name): "Tool" for tool in manifest.tools}, **found}


def arguments_shape(schema: Mapping[str, object]) -> Record:
    """The visible part of a tool's arguments; see the room's essay for the rule.

    >>> arguments_shape({"properties": {"to": {"type": "string"}, "body": {}}, "required": ["to"]})
    Record(fields=(Field(name='to', shape=Text(), required=True),))
    """
    shape, _ = _shape(schema, schema, MAX_DEPTH)
    return shape if isinstance(shape, Record) else NOTHING


def writable(name: str) -> bool:
    """Whether a name can be written as UTF-8; one with a lone surrogate cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def cedar_schema(manifest: PolicyManifest, shapes: Mapping[str, Record]) -> dict[str, object]:
    """The schema in Cedar's JSON form. ``shapes`` holds the visible arguments by tool name."""
    declared: dict[str, object] = {"tool": {}}
    for name, entity in actions(manifest).items():
        args = shapes[name.removeprefix("tool:")] if entity == "Tool" else NOTHING
        context = Record((*CONTEXT.fields, Field(ARGUMENTS, args, required=True)))
        applies = {"principalTypes": ["Agent"], "resourceTypes": [entity], "context": _declared(context)}
        declared[name] = {"appliesTo": applies, **({"memberOf": [{"id": "tool"}]} if entity == "Tool" else {})}
    shaped = {"Agent": {"shape": _declared(PRINCIPAL)}, "Tool": {"shape": _declared(TOOL)}}
    entities = {**shaped, "Model": {}, "Destination": {}}
    return {"": {"entityTypes": entities, "actions": declared}}


def _declared(shape: Shape) -> dict[str, object]:
    match shape:
        case Text():
            return {"type": "String"}
        case Whole():
            return {"type": "Long"}
        case Truth():
            return {"type": "Boolean"}
        case Number():
            return {"type": "Extension", "name": "decimal"}
        case Many(item):
            return {"type": "Set", "element": _declared(item)}
        case Record(fields):
            attributes = {escaped(each.name): {**_declared(each.shape), "required": each.required} for each in fields}
            return {"type": "Record", "attributes": attributes}
        case _:
            assert_never(shape)


_SCALARS: Final[Mapping[str, Shape]] = {"string": Text(), "integer": Whole(), "number": Number(), "boolean": Truth()}


def _shape(schema: object, root: Mapping[str, object], levels: int) -> tuple[Shape | None, bool]:
    """The shape of a JSON Schema (``None``: not visible to policies), and whether null is also allowed."""
    if levels == 0 or not isinstance(schema, Mapping):
        return None, False
    if "$ref" in schema:
        return _shape(_referred(schema["$ref"], root), root, levels - 1)
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return _united(schema[word], root, levels - 1, every=word == "allOf")
    kinds = _kinds(schema)
    nullable = "null" in kinds
    kinds -= {"null"}
    if kinds == {"integer", "number"}:
        return Number(), nullable
    if len(kinds) != 1:
        return None, nullable
    kind = kinds.pop()
    if kind == "array":
        return _array(schema, root, levels), nullable
    if kind == "object":
        return _object(schema, root, levels), nullable
    return _SCALARS.get(kind), nullable


def _kinds(schema: Mapping[str, object]) -> set[str]:
    """The JSON types that a schema allows: as declared, or as its ``enum`` or ``const`` shows."""
    declared = schema.get("type")
    if isinstance(declared, str):
        return {declared}
    if isinstance(declared, Sequence):
        return {str(each) for each in declared}
    listed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(listed, Sequence):
        return {_JSON_TYPES.get(type(each), "unknown") for each in listed}
    return {"object"} if "properties" in schema else set()


_JSON_TYPES: Final[Mapping[type, str]] = {
    str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array", dict: "object",
}  # fmt: skip


def _referred(reference: object, root: Mapping[str, object]) -> object:
    """What a local reference such as ``#/$defs/Address`` points at; nothing for any other."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: object = root
    for part in reference[2:].split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _united(branches: object, root: Mapping[str, object], levels: int, *, every: bool) -> tuple[Shape | None, bool]:
    """The one shape that all branches have, null aside. ``allOf`` only with a single branch: what several mean
    together is more.
    """
    if not isinstance(branches, Sequence) or (every and len(branches) != 1):
        return None, False
    nullable = False
    found: list[Shape | None] = []
    for branch in branches:
        if isinstance(branch, Mapping) and _kinds(branch) == {"null"}:
            nullable = True
            continue
        shape, null_too = _shape(branch, root, levels)
        nullable = nullable or null_too
        found.append(shape)
    alike = bool(found) and all(shape == found[0] for shape in found)
    return (found[0] if alike else None), nullable


def _array(schema: Mapping[str, object], root: Mapping[str, object], levels: int) -> Shape | None:
    if "prefixItems" in schema:
        return None
    item, nullable = _shape(schema.get("items"), root, levels - 1)
    return None if item is None or nullable else Many(item)


def _object(schema: Mapping[str, object], root: Mapping[str, object], levels: int) -> Shape | None:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return None
    listed = schema.get("required", ())
    required = set(listed) if isinstance(listed, Sequence) else set()
    fields = []
    for name, part in properties.items():
        shape, nullable = _shape(part, root, levels - 1)
        if shape is not None and writable(str(name)):
            fields.append(Field(str(name), shape, required=name in required and not nullable))
    return Record(tuple(fields)) if fields else None
