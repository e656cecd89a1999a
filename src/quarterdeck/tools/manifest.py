"""Tools of other people, declared by a manifest: JSON, one object per tool.

=====================  ==================================================================================================
``name``               required
``description``        what it does
``input_schema``       JSON Schema of its arguments (also ``inputSchema`` or ``parameters``)
``effect``             ``read``, ``write``, ``external`` or ``irreversible``. Without it: what MCP's ``annotations`` say
                       (``readOnlyHint``, ``destructiveHint``), else ``external``
``source``             integrity of what it returns: ``trusted`` or ``untrusted`` (also ``sources``, ``integrity``). Without
                       it, what a read returns is untrusted
``trusted_fields``     fields of an otherwise untrusted result, at any depth, whose values may be trusted; ``.`` for the items
                       of a result that is a plain list, each as a whole
``sensitivity``        ``public``, ``internal``, ``sensitive`` or ``secret``: of what a read returns, of what an effect touches
                       (also ``confidentiality``). Without it, everything is sensitive but what a read fetches from an address
``sinks``              the arguments that say whom or what it reaches: a list of names, or an object from names to kinds, of
                       which ``content`` is none. ``"x-sink": true`` on a property does the same. Without any, they are read
                       off the schema (:mod:`quarterdeck.core.sinks`)
``outward``            ``false`` on a ``write`` that reaches nobody but the run's own notes
``idempotent``, ``timeout_s``, ``permissions``, ``cost_microusd``, ``evidence``, ``secrets``   as for every tool
=====================  ==================================================================================================

What is not said is assumed to be dangerous, never harmless; other members are ignored.

>>> spec = manifest_spec({"name": "get_page", "parameters": {"properties": {"url": {"type": "string"}}}, "effect": "read"})
>>> spec.integrity.value, spec.confidentiality.value
('untrusted', 'public')
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import msgspec

from quarterdeck.core.canonical import strictly
from quarterdeck.core.contract import checked_name
from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Confidentiality, Integrity
from quarterdeck.core.sinks import Role, roles
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus
from quarterdeck.ports.tools import Finding, ToolContext, ToolFailure
from quarterdeck.tools.function import MAX_RESULT

Perform = Callable[[str, dict[str, object], ToolContext], Awaitable[object]]
"""How tools of a manifest are performed: called with name, arguments and context."""

_LEVELS = {
    "low": "public",
    "none": "public",
    "private": "sensitive",
    "personal": "sensitive",
    "confidential": "sensitive",
    "high": "sensitive",
    "medium": "internal",
    "restricted": "secret",
}
_NO_SINK = ("content", "payload", "body", "none", "text")
_encoder = msgspec.json.Encoder(order="deterministic")


def read_manifest(text: bytes) -> list[object]:
    """The tools of a manifest file: a list, or an object with a list ``tools``. Raises :class:`UsageError` (``manifest.invalid``)."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError("manifest.invalid", f"the manifest is no JSON: {error}") from None
    if isinstance(found, dict):
        found = found.get("tools")
    if not isinstance(found, list):
        raise UsageError("manifest.invalid", "a manifest is a list of tools, or an object with a list `tools`")
    return found


def manifest_spec(item: object) -> ToolSpec:
    """The specification of one tool of a manifest. Raises :class:`UsageError` (``manifest.invalid``, ``name.invalid``)."""
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise UsageError("manifest.invalid", f"{str(item)[:80]!r} is no tool; each is an object with at least a name")
    name = checked_name("tool", item["name"])
    schema: Mapping[str, object] = next(
        (item[key] for key in ("input_schema", "inputSchema", "parameters") if isinstance(item.get(key), Mapping)), {}
    )
    effect = _effect(name, item)
    sinks = _sinks(name, item, schema)
    level = _level(name, item)
    reads = effect is EffectClass.READ
    confidentiality = Confidentiality.PUBLIC
    if reads:
        reaches = Role.TARGET in roles(schema, effect, sinks).values()
        confidentiality = level or (Confidentiality.PUBLIC if reaches else Confidentiality.SENSITIVE)
    return ToolSpec(
        name=name,
        description=str(item.get("description") or ""),
        effect=effect,
        input_schema=_encoder.encode({"type": "object"} | dict(schema)),
        idempotent=bool(item.get("idempotent", _hints(item).get("idempotentHint", False))),
        timeout_s=float(cast("float", item.get("timeout_s", 30.0))),
        permissions=_names(item.get("permissions")),
        cost_microusd=int(cast("int", item.get("cost_microusd", 0))),
        evidence=_names(item.get("evidence")),
        integrity=_integrity(item, reads=reads),
        confidentiality=confidentiality,
        trusted_fields=_names(item.get("trusted_fields")),
        sinks=sinks,
        touches=None if reads else level,
        secrets=_names(item.get("secrets")),
    )


def _hints(item: Mapping[str, object]) -> Mapping[str, object]:
    hints = item.get("annotations")
    return hints if isinstance(hints, Mapping) else {}


def _effect(name: str, item: Mapping[str, object]) -> EffectClass:
    said = item.get("effect", item.get("effect_class"))
    if said is None:
        hints = _hints(item)
        if hints.get("readOnlyHint") is True:
            return EffectClass.READ
        return EffectClass.IRREVERSIBLE if hints.get("destructiveHint") is True else EffectClass.EXTERNAL
    try:
        return EffectClass(str(said))
    except ValueError:
        raise UsageError("manifest.invalid", f"the effect of {name} is {said!r}; use one of {', '.join(EffectClass)}") from None


def _integrity(item: Mapping[str, object], *, reads: bool) -> Integrity:
    said = next((item[key] for key in ("source", "sources", "integrity") if item.get(key) is not None), None)
    if said is None:
        return Integrity.UNTRUSTED if reads else Integrity.TRUSTED
    words = [each.get("integrity", "untrusted") if isinstance(each, Mapping) else each for each in _listed(said)]
    return Integrity.TRUSTED if all(each == Integrity.TRUSTED for each in words) else Integrity.UNTRUSTED


def _level(name: str, item: Mapping[str, object]) -> Confidentiality | None:
    said = next((item[key] for key in ("sensitivity", "confidentiality") if item.get(key) is not None), None)
    if said is None:
        return None
    if isinstance(said, bool):
        return Confidentiality.SENSITIVE if said else Confidentiality.PUBLIC
    word = str(said).lower()
    try:
        return Confidentiality(_LEVELS.get(word, word))
    except ValueError:
        raise UsageError(
            "manifest.invalid", f"the sensitivity of {name} is {said!r}; use one of {', '.join(Confidentiality)}"
        ) from None


def _sinks(name: str, item: Mapping[str, object], schema: Mapping[str, object]) -> tuple[str, ...] | None:
    said = next((item[key] for key in ("sinks", "sink") if item.get(key) is not None), None)
    properties = schema.get("properties")
    known = {str(key): part for key, part in properties.items()} if isinstance(properties, Mapping) else {}
    marked = [key for key, part in known.items() if isinstance(part, Mapping) and part.get("x-sink")]
    if item.get("outward") is False:
        return ()
    if not said:
        return tuple(marked) or None
    if isinstance(said, Mapping):
        found = [str(key) for key, kind in said.items() if kind not in (False, None, *_NO_SINK)]
    else:
        found = [
            str(each.get("argument", each.get("name"))) if isinstance(each, Mapping) else str(each) for each in _listed(said)
        ]
    unknown = sorted(set(found) - known.keys())
    if unknown:
        raise UsageError("manifest.invalid", f"{name} has no arguments {', '.join(unknown)}; sinks are names of its arguments")
    return tuple(dict.fromkeys([*found, *marked]))


def _listed(said: object) -> list[object]:
    return list(said) if isinstance(said, list | tuple) else [said]


def _names(said: object) -> tuple[str, ...]:
    return tuple([str(each) for each in _listed(said)]) if said else ()


class ManifestTool:
    """A tool of other people: its specification, and who performs it."""

    def __init__(self, spec: ToolSpec, perform: Perform) -> None:
        self.spec = spec
        self._perform = perform
        import jsonschema_rs

        schema = msgspec.json.decode(spec.input_schema)
        try:
            self._validator = jsonschema_rs.validator_for(schema)
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise UsageError("manifest.invalid", f"the schema of {spec.name} is none: {str(error)[:200]}") from None
        known = schema.get("properties")
        self._known = frozenset(known) if isinstance(known, dict) and "additionalProperties" not in schema else None

    def fit(self, arguments: bytes) -> str:
        """Why these arguments do not fit, or an empty string. Ones that the schema does not name do not, unless it says so."""
        value = msgspec.json.decode(arguments)
        error = next(iter(self._validator.iter_errors(value)), None)
        if error is not None:
            return str(error.message)[:500]
        if self._known is not None and isinstance(value, dict) and (unknown := sorted(value.keys() - self._known)):
            return f"there is no argument {unknown[0]!r}"
        return ""

    async def perform(self, arguments: bytes, context: ToolContext) -> bytes:
        """Perform once; the result as JSON."""
        result = await self._perform(self.spec.name, msgspec.json.decode(arguments), context)
        try:
            encoded = strictly(_encoder, result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            said = f"{self.spec.name} returned what is no JSON: {error}"
            raise ToolFailure("tool.result_unreadable", said, done=True) from None
        if len(encoded) > MAX_RESULT:
            raise ToolFailure("tool.result_too_large", f"{self.spec.name} returned more than {MAX_RESULT} bytes", done=True)
        return encoded

    async def reconcile(self, arguments: bytes, context: ToolContext) -> Finding:
        """Nobody can be asked."""
        return Finding(ReceiptStatus.UNKNOWN)
