"""The OpenAPI 3.1 document, made of the route table and the structs of the bodies; nothing in it is written by hand twice."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from quarterdeck import __version__
from quarterdeck.core.errors import UsageError
from quarterdeck.server.problems import PROBLEM, Problem, status_of
from quarterdeck.server.row import STREAM, Row
from quarterdeck.server.table import TABLE

Piece = dict[str, Any]
_REF = "#/components/schemas/{name}"
_EVERYWHERE = (400, 408, 421, 422, 429, 431, 500, 503)
_AUTHENTICATED = (401, 403)
_WRITING = (403, 413, 415)
_REFUSED = frozenset(
    (
        *("route.tenant", "route.mode", "switch.frozen", "switch.tenant_denied", "switch.route_stopped", "admission.budget"),
        *("approval.self", "auth.forbidden", "auth.beyond_rights"),
    )
)
"""The codes in the table that say no, and not that the request is wrong."""
_HEADERS: dict[str, str] = {
    "Idempotency-Key": "under the same key a repeated request is the same request; equal to the field idempotency_key, or alone",
    "Prefer": "respond-async, or wait=SECONDS for the result",
    "traceparent": "W3C trace context; its trace id becomes the correlation of a run that names none",
    "Last-Event-ID": "the sequence after which a stream goes on",
    "If-Match": "the approval's ETag: the digest of what was seen, in quotation marks",
}


def document(table: Iterable[Row] = TABLE) -> bytes:
    """The document as JSON."""
    rows = tuple(table)
    kinds = {kind for row in rows for kind in (row.request, *row.answers.values()) if kind is not None} | {Problem}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(ordered, schema_hook=_anything, ref_template=_REF)
    paths: dict[str, Piece] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.verb.lower()] = _operation(row)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Quarterdeck", "version": __version__, "description": "The model proposes, the runtime decides."},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def statuses(row: Row) -> dict[int, tuple[str, ...]]:
    """The problem statuses of an operation, with the codes of its own that each may carry."""
    found: dict[int, list[str]] = {status: [] for status in _EVERYWHERE}
    if row.action is not None:
        found |= {status: [] for status in _AUTHENTICATED}
    if row.request is not None:
        found |= {status: [] for status in _WRITING}
    for code in row.codes:
        found.setdefault(403 if code in _REFUSED else status_of(UsageError(code, "")), []).append(code)
    return {status: tuple(found[status]) for status in sorted(found) if status not in row.answers}


def _operation(row: Row) -> Piece:
    operation: Piece = {
        "operationId": row.name,
        "summary": row.summary,
        "parameters": [*_path_parameters(row), *_query_parameters(row), *map(_header, row.headers)],
        "responses": {str(status): _answer(row, status) for status in row.answers},
        "security": [] if row.action is None else [{"bearer": []}],
    }
    for status, codes in statuses(row).items():
        text = HTTPStatus(status).phrase + (f": {', '.join(f'`{code}`' for code in codes)}" if codes else "")
        operation["responses"][str(status)] = {"description": text, "content": {PROBLEM: {"schema": _ref(Problem)}}}
    if row.action is not None:
        operation["x-quarterdeck-action"] = row.action.value
    if row.request is not None:
        media: Piece = {"schema": _ref(row.request)}
        if row.example is not None:
            media["example"] = row.example
        operation["requestBody"] = {"required": row.body_required, "content": {"application/json": media}}
    return operation


def _answer(row: Row, status: int) -> Piece:
    kind = row.answers[status]
    answer: Piece = {"description": HTTPStatus(status).phrase}
    if kind is not None:
        answer["content"] = {row.media: {"schema": _ref(kind)}}
    elif status == 200:
        plain: Piece = {"schema": {"type": "object"} if row.media == "application/json" else {"type": "string"}}
        answer["content"] = {row.media: {} if row.media == STREAM else plain}
    if row.name == "submitRun" and status == 200:
        answer["content"][STREAM] = {}
    if row.name == "getApproval":
        answer["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "the digest, in quotation marks"}}
    if status == 202 and row.verb == "POST" and row.name in ("submitRun", "createTask"):
        answer["headers"] = {"Location": {"schema": {"type": "string"}, "description": "where it is"}}
    return answer


def _path_parameters(row: Row) -> list[Piece]:
    names = [part.partition("}")[0] for part in row.path.split("{")[1:]]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names]


def _query_parameters(row: Row) -> list[Piece]:
    found = []
    (_,), components = msgspec.json.schema_components((row.query,), ref_template=_REF)
    schema = components[row.query.__name__]
    for name, each in schema["properties"].items():
        plain = {key: value for key, value in each.items() if key != "default" or value is not None}
        if "anyOf" in plain:
            options = [option for option in plain.pop("anyOf") if option != {"type": "null"}]
            plain |= options[0] if len(options) == 1 else {"anyOf": options}
        found.append({"name": name, "in": "query", "required": False, "schema": plain})
    return found


def _header(name: str) -> Piece:
    return {
        "name": name,
        "in": "header",
        "required": name == "If-Match",
        "description": _HEADERS[name],
        "schema": {"type": "string"},
    }


def _anything(kind: type) -> Piece:
    """The schema of ``object``: any JSON value."""
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError(f"{kind} has no schema")  # how a schema hook says that it does not know a type


def _ref(kind: type) -> Piece:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
