"""The reference of the HTTP interface, written from its own description:
``python -m quarterdeck.server.reference > docs/reference/http.md``.

A test compares the page with what this writes, so that no operation, field or code can be missing from it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping

from quarterdeck.server.openapi import document

Piece = Mapping[str, object]

INTRODUCTION = """\
# HTTP reference

*This page is written by `python -m quarterdeck.server.reference` from the description that is served at `/openapi.json`; a test fails when
it is stale.* What the operations mean together is in [the guide](../guide/http.md), the codes in [their catalogue](codes.md).

Times are microseconds since 1970, UTC (`_us`); money is micro-dollars (`_microusd`). Every problem is `application/problem+json` with
a stable `code`. Beside the codes of its own, an operation may answer with those of the door itself.
"""
_COMMON = frozenset({"400", "401", "403", "408", "413", "415", "421", "422", "429", "431", "500", "503"})


def page() -> str:
    """The whole page."""
    spec = json.loads(document())
    lines = [INTRODUCTION, "## Operations\n"]
    for path, verbs in spec["paths"].items():
        for verb, operation in verbs.items():
            lines.extend(_operation(verb.upper(), path, operation))
    lines.append("## Bodies\n")
    for name, schema in sorted(spec["components"]["schemas"].items()):
        lines.extend(_schema(name, schema))
    return "\n".join(lines).rstrip() + "\n"


def _operation(verb: str, path: str, operation: dict[str, object]) -> Iterator[str]:
    yield f"### `{verb} {path}`\n"
    right = operation.get("x-quarterdeck-action")
    yield f"{operation['summary']}. " + (f"Needs the right `{right}`." if right else "Public.") + "\n"
    parameters = [each for each in _list(operation["parameters"]) if each["in"] != "path"]
    if parameters:
        yield "| parameter | in | type | meaning |\n|---|---|---|---|"
        for each in parameters:
            schema = _dict(each["schema"])
            said = str(each.get("description") or schema.get("description") or "")
            needed = ", required" if each["required"] else ""
            yield f"| `{each['name']}` | {each['in']}{needed} | {_type(schema)} | {_cell(said)} |"
        yield ""
    body = operation.get("requestBody")
    if body is not None:
        media = _dict(_dict(_dict(body)["content"])["application/json"])
        yield f"Body: {_type(_dict(media['schema']))}{'' if _dict(body)['required'] else ', optional'}. For example:\n"
        yield f"```json\n{json.dumps(media['example'])}\n```\n"
    yield "| status | what |\n|---|---|"
    for status, answer in _dict(operation["responses"]).items():
        yield from _answer(status, _dict(answer))
    yield ""


def _answer(status: str, answer: dict[str, object]) -> Iterator[str]:
    said = str(answer["description"])
    if status in _COMMON and ":" not in said:
        return
    content = _dict(answer.get("content", {}))
    shown = [_type(_dict(media.get("schema", {}))) for kind, media in _items(content) if kind == "application/json"]
    shown += [f"`{kind}`" for kind in content if kind not in ("application/json", "application/problem+json")]
    yield f"| {status} | {_cell(said)}{': ' if shown else ''}{', '.join(shown)} |"


def _schema(name: str, schema: dict[str, object]) -> Iterator[str]:
    yield f"### {name}\n"
    if "description" in schema:
        yield f"{str(schema['description']).replace('``', '`').strip()}\n"
    if "enum" in schema:
        yield f"One of {', '.join(f'`{each}`' for each in _list(schema['enum']))}.\n"
        return
    required = [str(each) for each in _list(schema.get("required", []))]
    yield "| field | type | |\n|---|---|---|"
    for field, each in _items(_dict(schema.get("properties", {}))):
        default = "" if field in required or "default" not in each else f"default `{json.dumps(each['default'])}`"
        yield f"| `{field}` | {_type(each)} | {default} |"
    yield ""


def _type(schema: dict[str, object]) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in _list(schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in _list(schema["enum"]))
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(_dict(schema.get('items', {})))}"
    return str(kind) if kind is not None else "any JSON"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _dict(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("the description holds an object here")
    return value


def _items(value: dict[str, object]) -> list[tuple[str, dict[str, object]]]:
    return [(name, _dict(each)) for name, each in value.items()]


def _list(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list):
        raise TypeError("the description holds a list here")
    return value


if __name__ == "__main__":
    sys.stdout.write(page())
