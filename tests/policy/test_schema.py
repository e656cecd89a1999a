"""From JSON Schema to what policies see; and the generated schema as Cedar reads it."""

from __future__ import annotations

import cedarpy
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import EffectClass, ProposalKind
from quarterdeck.policy import CedarEngine, PolicyManifest, PolicyTool
from quarterdeck.policy.schema import KIND_OF_RESOURCE, arguments_shape
from quarterdeck.policy.shapes import MAX_DEPTH, Field, Many, Number, Record, Shape, Text, Truth, Whole
from tests.policy.cases import PERMIT, engine, request


def seen(schema: object, **more: object) -> tuple[Shape, bool] | None:
    """The shape of one required property, and whether it is always there; nothing if it is not visible."""
    fields = arguments_shape({"type": "object", "properties": {"x": schema}, "required": ["x"], **more}).fields
    return (fields[0].shape, fields[0].required) if fields else None


@pytest.mark.parametrize(
    ("schema", "shape"),
    [
        ({"type": "string"}, (Text(), True)),
        ({"type": "integer", "minimum": 0}, (Whole(), True)),
        ({"type": "boolean"}, (Truth(), True)),
        ({"type": "number"}, (Number(), True)),
        ({"type": ["integer", "number"]}, (Number(), True)),
        ({"type": ["string", "null"]}, (Text(), False)),
        ({"enum": ["a", "b"]}, (Text(), True)),
        ({"enum": [1, 2]}, (Whole(), True)),
        ({"enum": ["a", None]}, (Text(), False)),
        ({"const": True}, (Truth(), True)),
        ({"type": "array", "items": {"type": "integer"}}, (Many(Whole()), True)),
        ({"type": "array", "items": {"type": "array", "items": {"enum": ["a"]}}}, (Many(Many(Text())), True)),
        ({"properties": {"y": {"type": "string"}}}, (Record((Field("y", Text(), False),)), True)),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, (Text(), False)),
        ({"oneOf": [{"type": "string", "format": "date"}, {"type": "string"}]}, (Text(), True)),
        ({"allOf": [{"type": "integer"}]}, (Whole(), True)),
        ({"$ref": "#/$defs/A~1b"}, (Whole(), True)),
    ],
)
def test_what_can_be_typed_is_visible(schema: object, shape: tuple[Shape, bool]) -> None:
    assert seen(schema, **{"$defs": {"A/b": {"type": "integer"}}}) == shape


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "null"},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"free": {}}},
        {"type": ["string", "integer"]},
        {"enum": ["a", 1]},
        {"enum": []},
        {"const": [1]},
        {"type": "array"},
        {"type": "array", "items": {}},
        {"type": "array", "items": {"type": ["string", "null"]}},
        {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "string"}},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"anyOf": [{"type": "null"}]},
        {"allOf": [{"type": "string"}, {"type": "string"}]},
        {"$ref": "#/$defs/absent"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/properties/x"},
        {"type": "sideways"},
    ],
)
def test_what_cannot_be_typed_is_not_visible(schema: object) -> None:
    assert seen(schema) is None


def test_nesting_is_visible_down_to_the_limit() -> None:
    schema: dict[str, object] = {"type": "string"}
    depths = []
    for _ in range(MAX_DEPTH + 2):
        depths.append(seen(schema) is not None)
        schema = {"type": "object", "properties": {"deeper": schema}}
    assert depths == [True] * (MAX_DEPTH - 1) + [False] * 3


def test_recursion_ends_at_the_limit() -> None:
    node = {"properties": {"name": {"type": "string"}, "child": {"$ref": "#/$defs/node"}}}
    assert seen({"$ref": "#/$defs/node"}, **{"$defs": {"node": node}}) is not None


def test_every_kind_of_proposal_is_an_action() -> None:
    assert set(KIND_OF_RESOURCE) == set(ProposalKind)


def test_a_tool_can_be_taken_from_its_specification() -> None:
    schema = {"type": "object", "properties": {"query": {"type": "string"}}}
    spec = ToolSpec("search", "Looks things up.", EffectClass.READ, msgspec.json.encode(schema))
    assert PolicyTool.of(spec) == PolicyTool("search", EffectClass.READ, schema)


def test_the_schema_can_be_used_with_other_cedar_tools() -> None:
    schema = {"properties": {"amount": {"type": "number"}, "we ird": {"type": "integer"}}, "required": ["amount"]}
    built = engine(PERMIT, PolicyManifest((PolicyTool('odd "name"', EffectClass.WRITE, schema),), ("a",), ("m",)))
    text = r"""
    permit(principal == Agent::"a", action == Action::"tool:odd \"name\"", resource)
    when { context.args.amount.lessThan(decimal("1.0")) && context.args has "we ird" && context.args["we ird"] > 1
        && resource.permissions.contains("x") && resource.effect == "write" && context.spent.cost_microusd < 5 };
    """
    assert cedarpy.validate_policies(text, built.schema).validation_passed
    asked = request(resource='odd "name"', principal="a", arguments={"amount": 0.5})
    assert CedarEngine.build(text, PolicyManifest((PolicyTool('odd "name"', EffectClass.WRITE, schema),), ("a",))).judge(
        asked
    ).reasons == ("policy.no_permit",)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "properties", "items", "enum", "const", "anyOf", "$ref", "required", "x", "__entity"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "required", "$ref", "anyOf", "enum"]), JSON, max_size=4))
def test_any_schema_at_all_gives_an_engine(schema: dict[str, object]) -> None:
    built = engine(PERMIT, PolicyManifest((PolicyTool("odd", EffectClass.READ, schema),), ("support",)))
    assert built.judge(request(resource="odd", arguments={})).outcome == "allow"
