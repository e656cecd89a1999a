"""A view: exactly what the policies of one shard read of a request.

``key`` takes it out of the request, typed; ``context`` and ``entities`` rebuild Cedar's input from the key alone. What
is not in the key cannot influence the verdict, so remembering verdicts by key is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from quarterdeck.policy.reads import Reads
from quarterdeck.policy.schema import ARGUMENTS, CONTEXT, NOTHING, PRINCIPAL, TOOL
from quarterdeck.policy.shapes import Form, Key, Record, Unreadable, compiled, pruned
from quarterdeck.ports.policy import PolicyRequest

MAX_CONTEXT_BYTES: Final = 64 * 1024
"""What policies may read of one request, as JSON; more is denied with ``policy.too_large``."""

Taker = Callable[[PolicyRequest], Key]


@dataclass(frozen=True, slots=True)
class View:
    """Compiled for one shard: one taker and one form per part of the request that is read."""

    takers: tuple[Taker, ...]
    forms: Mapping[str, tuple[int, Form]]

    def key(self, request: PolicyRequest) -> tuple[Key, ...]:
        """What is read of ``request``, hashable. Raises ``Unreadable`` for a value that is missing or has no exact
        form.
        """
        return tuple([take(request) for take in self.takers])

    def context(self, key: tuple[Key, ...]) -> str:
        """Cedar's context, as JSON. Raises ``Unreadable`` beyond :data:`MAX_CONTEXT_BYTES`."""
        shown = self._shown("context", key)
        shown[ARGUMENTS] = self._shown("arguments", key)
        text = _json(shown)
        if len(text) > MAX_CONTEXT_BYTES:
            raise Unreadable("policy.too_large", f"what policies read is larger than {MAX_CONTEXT_BYTES} bytes")
        return text.decode()

    def entities(self, key: tuple[Key, ...], principal: str, kind: str, resource: str) -> str | None:
        """The principal and the resource with the attributes that are read, as Cedar's JSON; nothing if none are."""
        found = []
        for part, type_, name in (("principal", "Agent", principal), ("resource", kind, resource)):
            if part in self.forms:
                uid = {"type": type_, "id": name}
                found.append({"uid": uid, "attrs": self._shown(part, key), "parents": []})
        return _json(found).decode() if found else None

    def identities(self, key: tuple[Key, ...]) -> tuple[Key, ...]:
        """The part of the key that :meth:`entities` depends on."""
        return tuple([key[self.forms[part][0]] for part in ("principal", "resource") if part in self.forms])

    def _shown(self, part: str, key: tuple[Key, ...]) -> dict[str, object]:
        if part not in self.forms:
            return {}
        position, form = self.forms[part]
        shown = form.show(key[position])
        if not isinstance(shown, dict):
            raise TypeError("each part of a request is shown as a record")
        return shown


def view_of(reads: Reads, kind: str, arguments: Record) -> View:
    """The view of a shard whose resources are of the entity type ``kind`` and whose tool takes ``arguments``."""
    parts: list[tuple[str, Record, Callable[[PolicyRequest], object]]] = [
        ("principal", pruned(PRINCIPAL, reads.below("principal")), lambda request: request.principal_attributes),
        ("resource", pruned(TOOL if kind == "Tool" else NOTHING, reads.below("resource")), _resource_attributes),
        ("context", pruned(CONTEXT, reads.below("context")), lambda request: request.context),
        ("arguments", pruned(arguments, reads.below("context", ARGUMENTS)), lambda request: request.arguments),
    ]
    takers: list[Taker] = []
    forms: dict[str, tuple[int, Form]] = {}
    if "principal" in reads.names:
        takers.append(lambda request: request.principal)
    if "resource" in reads.names:
        takers.append(lambda request: request.resource)
    for name, shape, source in parts:
        if shape.fields:
            form = compiled(shape)
            forms[name] = (len(takers), form)
            takers.append(_taker(form.read, source))
    return View(tuple(takers), forms)


def _resource_attributes(request: PolicyRequest) -> object:
    return request.resource_attributes


def _taker(read: Callable[[object], Key], source: Callable[[PolicyRequest], object]) -> Taker:
    return lambda request: read(source(request))


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise Unreadable("policy.unrepresentable", "a lone surrogate has no exact form in a policy") from error
