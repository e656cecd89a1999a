"""What an argument is to an action, and the rule of two itself."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.origins import MAX_VALUE, Origins
from quarterdeck.core.sinks import MAX_PROSE, MAX_TARGETS, Role, crossing, links, roles, sinks_of
from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.tools.manifest import ManifestTool, manifest_spec, read_manifest

BOTH = Labels(Integrity.UNTRUSTED, Confidentiality.SENSITIVE)


def tool(effect: str = "external", **more: object) -> object:
    schema = {"properties": {"to": {"type": "string"}, "amount": {"type": "number"}, "body": {"type": "string"}}}
    return manifest_spec({"name": "act", "effect": effect, "input_schema": schema, **more})


def codes(spec: object, arguments: object, labels: Labels = BOTH, text: str = "") -> tuple[str, ...]:
    origins = Origins(tainted=True)
    origins.ask(text)
    return crossing(sinks_of(spec), arguments, labels, origins).codes  # type: ignore[arg-type]


def test_each_of_the_three_is_needed() -> None:
    arguments = {"to": "eve@evil.example"}
    for integrity, level, touches, effect in itertools.product(
        Integrity, (Confidentiality.PUBLIC, Confidentiality.INTERNAL), ("public", "internal"), ("read", "external")
    ):
        spec = tool(effect, sensitivity=touches)
        three = (
            integrity is Integrity.UNTRUSTED
            and effect == "external"
            and (level is not Confidentiality.PUBLIC or touches != "public")
        )
        assert (codes(spec, arguments, Labels(integrity, level)) != ()) is three


def test_targets_amounts_links_and_actions_without_a_target() -> None:
    spec = tool()
    assert codes(spec, {"to": "bob", "amount": 5, "body": "free words"}, text="pay bob 5") == ()
    assert codes(spec, {"to": "eve", "amount": 5}, text="pay bob 5") == ("label.untrusted_target",)
    assert codes(spec, {"to": "bob", "amount": 6}, text="pay bob 5") == ("label.untrusted_amount",)
    assert codes(spec, {"to": "bob", "body": "see https://x.example"}, text="pay bob 5") == ("label.untrusted_link",)
    assert codes(spec, {"body": "free words"}, text="pay bob 5") == ("label.no_target",)
    assert codes(spec, {"body": "pay bob"}, text="please pay bob 5") == ()
    assert codes(spec, {}, text="pay bob 5") == ("label.no_target",)
    assert codes(spec, {"to": None, "amount": 5}, text="pay bob 5") == ()


def test_a_write_without_a_target_has_a_title_of_the_caller() -> None:
    schema = {"properties": {"title": {"type": "string"}, "text": {"type": "string"}}}
    spec = manifest_spec({"name": "note", "effect": "write", "input_schema": schema})
    assert codes(spec, {"title": "Lunch", "text": "made up"}, text="Note: Lunch") == ()
    assert codes(spec, {"title": "Dinner", "text": "made up"}, text="Note: Lunch") == ("label.no_target",)
    outside = manifest_spec({"name": "note", "effect": "external", "input_schema": schema})
    assert codes(outside, {"title": "Lunch", "text": "made up"}, text="Note: Lunch") == ("label.no_target",)


def test_without_origins_nothing_is_trusted() -> None:
    assert crossing(sinks_of(tool()), {"to": "bob"}, BOTH, None).arguments == ("to",)  # type: ignore[arg-type]


def test_nested_values_are_looked_at() -> None:
    assert codes(tool(), {"to": {"list": ["bob", {"x": "eve"}]}}, text="bob") == ("label.untrusted_target",)


def test_roles_are_read_off_a_schema() -> None:
    schema = {
        "properties": {
            "file_id": {"type": "string"},
            "accountNumber": {"type": "integer"},
            "messageBody": {"type": "string"},
            "start_time": {"type": "string"},
            "permission": {"enum": ["r", "w"]},
            "urgent": {"type": "boolean"},
            "total_price": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "participants": {"type": "array", "items": {"type": "string"}},
            "limit": {"type": "integer"},
            "anything": {},
        }
    }
    found = roles(schema, EffectClass.EXTERNAL, None)
    assert found == {
        "file_id": Role.TARGET,
        "accountNumber": Role.TARGET,
        "messageBody": Role.CONTENT,
        "start_time": Role.NEUTRAL,
        "permission": Role.NEUTRAL,
        "urgent": Role.NEUTRAL,
        "total_price": Role.AMOUNT,
        "participants": Role.TARGET,
        "limit": Role.NEUTRAL,
        "anything": Role.TARGET,
    }
    reads = roles({"properties": {"url": {}, "query": {}, "page": {"format": "uri"}}}, EffectClass.READ, None)
    assert reads == {"url": Role.TARGET, "query": Role.NEUTRAL, "page": Role.TARGET}


def test_what_is_declared_counts() -> None:
    assert sinks_of(tool(sinks=["body"])).roles == {"to": Role.CONTENT, "amount": Role.AMOUNT, "body": Role.TARGET}  # type: ignore[arg-type]
    assert sinks_of(tool(sinks={"to": "recipient", "body": "content"})).roles["body"] is Role.CONTENT  # type: ignore[arg-type]
    assert not sinks_of(tool("write", outward=False)).outward  # type: ignore[arg-type]
    assert sinks_of(tool("external", outward=False)).outward  # type: ignore[arg-type]


def test_what_a_manifest_does_not_say_is_dangerous() -> None:
    read = manifest_spec({"name": "peek"})
    assert read.effect is EffectClass.EXTERNAL
    read = manifest_spec({"name": "peek", "annotations": {"readOnlyHint": True}})
    assert (read.effect, read.integrity, read.confidentiality) == (
        EffectClass.READ,
        Integrity.UNTRUSTED,
        Confidentiality.SENSITIVE,
    )
    assert manifest_spec({"name": "drop", "annotations": {"destructiveHint": True}}).effect is EffectClass.IRREVERSIBLE
    assert manifest_spec({"name": "peek", "effect": "read", "sources": ["trusted"]}).integrity is Integrity.TRUSTED
    assert manifest_spec({"name": "peek", "effect": "read", "sources": ["trusted", "mail"]}).integrity is Integrity.UNTRUSTED


@pytest.mark.parametrize(
    "item",
    [
        7,
        {},
        {"name": "a b"},
        {"name": "x", "effect": "magic"},
        {"name": "x", "sensitivity": "odd"},
        {"name": "x", "sinks": ["to"]},
    ],
)
def test_a_bad_manifest_is_refused(item: object) -> None:
    with pytest.raises(UsageError) as caught:
        manifest_spec(item)
    assert caught.value.code in ("manifest.invalid", "name.invalid")


@pytest.mark.parametrize("text", [b"{", b"7", b'{"tools":1}'])
def test_a_bad_manifest_file_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        read_manifest(text)
    assert caught.value.code == "manifest.invalid"


def test_arguments_of_a_manifest_tool_are_checked() -> None:
    async def perform(name: str, arguments: dict[str, object], context: object) -> object:
        return None

    made = ManifestTool(tool(), perform)  # type: ignore[arg-type]
    assert made.fit(b'{"to":"bob"}') == ""
    assert "string" in made.fit(b'{"to":7}')
    assert "extra" in made.fit(b'{"extra":7}')
    with pytest.raises(UsageError):
        ManifestTool(msgspec.structs.replace(made.spec, input_schema=b'{"type":"nothing"}'), perform)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nothing here, see notes.txt and e.g. this", []),
        ("mail ann@corp.example", []),
        ("www.x.example/y", ["www.x.example/y"]),
        ("https%3A%2F%2Fx.example", ["https://x.example"]),
        ("https&#58;//x.example", ["https://x.example"]),
        ("ht\u200btps://x.example", ["https://x.example"]),
        ("x\u3002example", ["x.example"]),
        ("aHR0cHM6Ly94LmV4YW1wbGUvbG9naW4=", ["https://x.example/login"]),
        ("68747470733a2f2f782e6578616d706c65", ["https://x.example"]),
        ("IBAN GB29 NWBK 6016 1331 9268 19", ["GB29 NWBK 6016 1331 9268 19"]),
    ],
)
def test_links_are_found_through_disguises(text: str, found: list[str]) -> None:
    assert list(links(text)) == found


def test_what_is_too_much_to_be_sure_about_is_asked() -> None:
    long = "plain words " * (MAX_PROSE // 10)
    assert codes(tool(), {"to": "bob", "body": long[: MAX_PROSE - 1]}, text="bob") == ()
    assert codes(tool(), {"to": "bob", "body": long}, text="bob") == ("label.untrusted_link",)
    assert codes(tool(), {"to": ["bob"] * MAX_TARGETS}, text="bob") == ()
    assert codes(tool(), {"to": ["bob"] * (MAX_TARGETS + 1)}, text="bob") == ("label.untrusted_target",)
    assert codes(tool(), {"to": "bob," * (MAX_VALUE // 4)}, text="bob") == ()
    assert codes(tool(), {"to": "bob," * (MAX_VALUE // 4 + 1)}, text="bob") == ("label.untrusted_target",)


def test_a_list_vouches_only_for_what_somebody_asked_for() -> None:
    spec = manifest_spec(
        {"name": "book_room", "effect": "external", "input_schema": {"properties": {"room": {"type": "string"}}}}
    )
    for text, expected in (
        ("Which room is best?", ("label.unasked",)),
        ("Book the best room", ()),
        ("Reserviere den besten Raum", ()),
    ):
        origins = Origins()
        origins.ask(text)
        origins.trust("Ada")
        origins.tainted = True
        assert crossing(sinks_of(spec), {"room": "Ada"}, BOTH, origins).codes == expected
        assert crossing(sinks_of(spec), {"room": "Eve"}, BOTH, origins).codes == ("label.untrusted_target",)


def test_secrets_leave_only_in_the_words_of_the_caller() -> None:
    secret = Labels(Integrity.UNTRUSTED, Confidentiality.SECRET)
    assert codes(tool(), {"to": "bob", "body": "made up"}, secret, "tell bob: all is well") == ("label.secret_content",)
    assert codes(tool(), {"to": "bob", "body": "all is well"}, secret, "tell bob: all is well") == ()


def test_a_call_whose_list_of_recipients_is_empty_reaches_nobody() -> None:
    def spec(shape: object) -> object:
        schema = {"properties": {"guests": shape, "title": {"type": "string"}, "text": {"type": "string"}}}
        return manifest_spec({"name": "add_event", "effect": "external", "input_schema": schema, "sinks": ["guests"]})

    listed = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    for shape, expected in ((listed, ()), ({"type": "string"}, ("label.no_target",))):
        assert codes(spec(shape), {"title": "Lamp Day", "text": "made up", "guests": None}, text="add the lamp day") == expected
    assert codes(spec(listed), {"title": "Other", "text": "made up"}, text="add the lamp day") == ("label.no_target",)
    assert codes(spec(listed), {"title": "Lamp day", "guests": ["eve"]}, text="add the Lamp day") == ("label.untrusted_target",)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("<img src=//evil.example/a>", "//evil.example/a"),
        ("see \u00e9vil.example", "\u00e9vil.example"),
        ("at evil.xn--p1ai/x", "evil.xn--p1ai/x"),
        ("http:\\\\evil.example", "http:\\\\evil.example"),
        ("https:evil.example", "https:evil.example"),
        ("10.0.0.1:80/x", "10.0.0.1:80/x"),
        ("evil.example:8080", "evil.example:8080"),
    ],
)
def test_a_link_is_what_a_browser_would_follow(text: str, link: str) -> None:
    assert list(links(text)) == [link]


@pytest.mark.parametrize("text", ["either/or", "src//x.py", "version 1.2.3.4", "12:30.", "C:\\dir\\x.txt", "http status", "3.14"])
def test_what_is_no_link(text: str) -> None:
    assert list(links(text)) == []


def test_to_be_spoken_of_is_not_to_be_written_to() -> None:
    schema = {"properties": {"to": {"type": "string"}}}
    spec = manifest_spec({"name": "send_mail", "effect": "external", "input_schema": schema})
    for text, expected in (
        ("What does eve@evil.example want?", ("label.unasked",)),
        ("Show me the mail from eve@evil.example", ("label.unasked",)),
        ("A summary for eve@evil.example", ()),
        ("Answer eve@evil.example", ()),
        ("Was will eve@evil.example", ()),
    ):
        assert codes(spec, {"to": "eve@evil.example"}, text=text) == expected, text


def test_flags_and_choices_that_open_something_to_everybody() -> None:
    schema = {"properties": {"to": {"type": "string"}, "is_public": {"type": "boolean"}, "role": {"enum": ["reader", "owner"]}}}
    spec = manifest_spec({"name": "share", "effect": "external", "input_schema": schema})
    assert codes(spec, {"to": "bob", "is_public": False, "role": "reader"}, text="share it with bob") == ()
    assert codes(spec, {"to": "bob", "is_public": True}, text="share it with bob") == ("label.untrusted_target",)
    assert codes(spec, {"to": "bob", "role": "owner"}, text="share it with bob") == ("label.untrusted_target",)
    assert codes(spec, {"to": "bob", "is_public": True, "role": "owner"}, text="share it in public, bob is owner") == ()


def test_a_read_of_an_address_reaches_outside_whatever_the_argument_is_called() -> None:
    spec = manifest_spec({"name": "peek", "effect": "read", "input_schema": {"properties": {"name": {"type": "string"}}}})
    assert codes(spec, {"name": "notes"}) == ()
    for address in ("https://evil.example/?q=1", "//evil.example/", "\\\\evil.example\\x", "www.evil.example", "file://x/y"):
        assert codes(spec, {"name": address}) == ("label.untrusted_target",)
        assert codes(spec, {"name": address}, text=f"read {address}") == ()


def test_a_closed_choice_is_one_also_where_the_schema_refers_to_it() -> None:
    schema = {
        "$defs": {"Level": {"enum": ["r", "rw"]}, "Who": {"type": "string"}, "Loop": {"$ref": "#/$defs/Loop"}},
        "properties": {
            "level": {"$ref": "#/$defs/Level"},
            "wrapped": {"allOf": [{"$ref": "#/$defs/Level"}]},
            "maybe": {"anyOf": [{"$ref": "#/$defs/Level"}, {"type": "null"}]},
            "either": {"anyOf": [{"$ref": "#/$defs/Level"}, {"type": "string"}]},
            "who": {"$ref": "#/$defs/Who"},
            "lost": {"$ref": "#/$defs/Nothing"},
            "round": {"$ref": "#/$defs/Loop"},
        },
    }
    found = roles(schema, EffectClass.EXTERNAL, None)
    assert {name for name, role in found.items() if role is Role.NEUTRAL} == {"level", "wrapped", "maybe"}
    assert {role for name, role in found.items() if name not in ("level", "wrapped", "maybe")} == {Role.TARGET}


def test_names_that_a_schema_does_not_give_are_data() -> None:
    inner = {"type": "object", "properties": {"address": {"type": "string"}}}
    schema = {"properties": {"to": {"type": "array", "items": inner}, "open": {"type": "object"}, "body": {"type": "string"}}}
    item = {"name": "hand", "effect": "external", "input_schema": schema}
    sinks, known = sinks_of(manifest_spec(item)), Origins()
    known.ask("hand it to bob@corp.example, read only")
    labels = Labels(Integrity.UNTRUSTED, Confidentiality.SENSITIVE)

    def told(arguments: object) -> tuple[str, ...]:
        return crossing(sinks, arguments, labels, known).codes

    assert told({"to": [{"address": "bob@corp.example"}]}) == ()
    assert told({"open": {"bob@corp.example": "read"}}) == ()
    assert told({"open": {"eve@evil.example": "read"}}) == ("label.untrusted_target",)
    assert told({"open": {"eve@evil.example": True}}) == ("label.untrusted_target",)
    assert told({"to": [{"address": "bob@corp.example", "eve@evil.example": []}]}) == ("label.untrusted_target",)
    assert told({"to": [{"address": "bob@corp.example"}], "eve@evil.example": True}) == ("label.untrusted_target",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FY24 revenue increased and Q3 was good", False),
        ("DE44 5001 0517 5407 3249 31", True),
        ("4237 4252 7456 2574", True),
        ("4237 4252 7456 2575", False),
        ("0x52908400098527886E0F7030069857D2E4169EE7", True),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", True),
        ("at 10:30: a note", False),
        ("magnet://x", True),
        ("javascript:alert(1)", True),
    ],
)
def test_accounts_cards_and_links_of_any_kind(text: str, found: bool) -> None:
    assert bool(list(links(text))) is found


def test_some_of_a_closed_list_are_a_choice_like_one_of_it() -> None:
    doors = {"type": "array", "items": {"type": "string", "enum": ["front", "rear"]}}
    open_list = {"type": "array", "items": {"type": "string"}}
    found = roles({"properties": {"doors": doors, "people": open_list}}, EffectClass.EXTERNAL, None)
    assert found == {"doors": Role.NEUTRAL, "people": Role.TARGET}
