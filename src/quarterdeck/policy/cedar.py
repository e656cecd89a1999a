"""The engine: one proposal in, one verdict out, from what the policies in question read.

The way of a request: its place (who, what, on what) → the shard of that place → the key (what the shard's policies
read, typed) → the remembered verdict of that key, or one evaluation. Cedar names only the forbids where one applies, so
where every forbid that applies asks, a second evaluation of the permits alone says whether one applies too.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final, Literal

import cedarpy
import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.policy.check import Names, check_policies, rendered
from quarterdeck.policy.schema import PolicyManifest, arguments_shape, cedar_schema, writable
from quarterdeck.policy.shapes import Key, Unreadable
from quarterdeck.policy.shards import Atlas, Place, Shard
from quarterdeck.policy.source import Policy, Problem, read_policies
from quarterdeck.ports.policy import PolicyRequest, Verdict

MAX_SHARDS: Final = 1024
"""Compiled shards kept; beyond it the one built first is dropped and built again when it is needed."""
MAX_REMEMBERED: Final = 4096
"""Verdicts kept; beyond it the one used longest ago is forgotten."""
MAX_REMEMBERED_BYTES: Final = 4096
"""A context larger than this is judged each time, so that large arguments do not fill the memory."""
MAX_ENTITIES: Final = 1024
"""Compiled pairs of principal and resource kept; beyond it all are dropped and compiled again as they are needed."""


class Explanation(msgspec.Struct, frozen=True):
    """A verdict with its grounds.

    ``policies`` are the places (``source:line``) of those that decided, ``errors`` what went wrong, ``considered`` how
    many policies could have had a say (0 if the request could not be read).
    """

    verdict: Verdict
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    considered: int = 0


class CedarEngine:
    """A compiled, validated set. Safe to share between threads; see :class:`~quarterdeck.ports.policy.PolicyEngine`.

    >>> from quarterdeck.policy import PolicyManifest, PolicyTool
    >>> schema = {"type": "object", "properties": {"amount_cents": {"type": "integer"}}, "required": ["amount_cents"]}
    >>> manifest = PolicyManifest((PolicyTool("issue_refund", EffectClass.EXTERNAL, schema),), agents=("support",))
    >>> policies = '''
    ...     permit(principal, action, resource);
    ...     @reason("refund.too_large") @outcome("ask")
    ...     forbid(principal, action in Action::"tool", resource == Tool::"issue_refund")
    ...     when { context.args.amount_cents > 5000 };
    ... '''
    >>> engine = CedarEngine.build(policies, manifest)
    >>> def refund(cents):
    ...     return PolicyRequest("support", {}, "tool", "Tool", "issue_refund", {}, {}, {"amount_cents": cents})
    >>> engine.judge(refund(900)).outcome
    'allow'
    >>> verdict = engine.judge(refund(9000))
    >>> verdict.outcome, verdict.reasons, verdict.version == engine.version
    ('ask', ('refund.too_large',), True)
    """

    def __init__(self, atlas: Atlas, version: str, schema: str, *, remember: int = MAX_REMEMBERED) -> None:
        """Use :meth:`build`; this takes what was checked there."""
        self._atlas = atlas
        self._version = version
        self._schema = schema
        self._remember = remember
        self._shards: dict[Place, Shard] = {}
        self._remembered: OrderedDict[tuple[int, tuple[Key, ...]], Explanation] = OrderedDict()
        self._seen: dict[tuple[int, str, tuple[Key, ...]], cedarpy.Entities] = {}
        self._lock = threading.Lock()
        self._shadow: CedarEngine | None = None
        self._hits = 0
        self._evaluations = 0

    @classmethod
    def build(cls, policies: Mapping[str, str] | str, manifest: PolicyManifest, *, remember: int = MAX_REMEMBERED) -> CedarEngine:
        """Compile ``policies`` (Cedar texts by source name, or one text) for what ``manifest`` knows.

        ``remember`` bounds the verdicts kept; 0 judges afresh each time. Raises ``UsageError("policy.invalid")`` with
        every problem, each with its place; a set with a problem never becomes an engine.
        """
        sources = {"policies": policies} if isinstance(policies, str) else dict(policies)
        wrong = _manifest_problems(manifest)
        if wrong:
            raise _invalid(wrong)
        parsed, problems = read_policies(sources)
        shapes = {tool.name: arguments_shape(tool.arguments) for tool in manifest.tools}
        declared = msgspec.json.encode(cedar_schema(manifest, shapes), order="sorted")
        schema = cedarpy.Schema.from_json_str(declared.decode())
        problems += check_policies(parsed, Names.of(manifest), shapes, schema)
        if problems:
            raise _invalid(problems)
        version = _version(parsed, manifest, declared)
        enforced = [policy for policy in parsed if not policy.shadow]
        made = cls(Atlas(enforced, manifest, shapes), version, str(schema), remember=remember)
        if len(enforced) < len(parsed):
            made._shadow = cls(Atlas(parsed, manifest, shapes), version, str(schema), remember=remember)
        return made

    @property
    def version(self) -> str:
        """SHA-256 over the canonical policies, the schema and the manifest's names; layout and order do not count."""
        return self._version

    @property
    def schema(self) -> str:
        """The generated Cedar schema, as text, for editors and other Cedar tools."""
        return self._schema

    @property
    def counts(self) -> tuple[int, int]:
        """Verdicts answered from memory, and evaluations made."""
        return self._hits, self._evaluations

    def judge(self, request: PolicyRequest) -> Verdict:
        """Decide; never raises. The same request gets the same verdict from memory or afresh."""
        verdict = self._decided(request, afresh=False).verdict
        if self._shadow is not None:
            other = self._shadow.judge(request)
            if (other.outcome, other.reasons) != (verdict.outcome, verdict.reasons):
                return msgspec.structs.replace(verdict, shadow=(other.outcome, *other.reasons))
        return verdict

    def explain(self, request: PolicyRequest) -> Explanation:
        """Judge afresh and say why; for people, tests and backtests. Same verdict as :meth:`judge`; never raises."""
        return self._decided(request, afresh=True)

    def _decided(self, request: PolicyRequest, *, afresh: bool) -> Explanation:
        try:
            shard = self._shard(request)
            key = (shard.number, shard.view.key(request))
            if not afresh:
                with self._lock:
                    known = self._remembered.get(key)
                    if known is not None:
                        self._remembered.move_to_end(key)
                        self._hits += 1
                        return known
            context = shard.view.context(key[1])
            found = self._evaluated(request, shard, key[1], context)
            if not afresh and len(context) <= MAX_REMEMBERED_BYTES:
                self._keep(key, found)
            return found
        except Unreadable as refusal:
            return Explanation(self._denied(refusal.code), errors=(refusal.message,))
        except Exception as error:  # the one broad except of judging
            return Explanation(self._denied("policy.error"), errors=(f"{type(error).__name__}: {error}",))

    def _shard(self, request: PolicyRequest) -> Shard:
        place = self._atlas.place(request)
        shard = self._shards.get(place)
        if shard is None:
            with self._lock:
                shard = self._atlas.shard(place, list(self._shards.values()))
                if len(self._shards) >= MAX_SHARDS:
                    del self._shards[next(iter(self._shards))]
                self._shards[place] = shard
        return shard

    def _keep(self, key: tuple[int, tuple[Key, ...]], found: Explanation) -> None:
        with self._lock:
            self._remembered[key] = found
            if len(self._remembered) > self._remember:
                self._remembered.popitem(last=False)

    def _evaluated(self, request: PolicyRequest, shard: Shard, key: tuple[Key, ...], context: str) -> Explanation:
        entities = self._entities(request, shard, key)
        asked: dict[str, object] = {
            "principal": {"type": "Agent", "id": request.principal},
            "action": shard.action,
            "resource": {"type": shard.kind, "id": request.resource},
            "context": context,
        }
        self._evaluations += 1
        first = cedarpy.is_authorized(asked, shard.handles.all, entities)
        decision, errors = first.decision, tuple(first.diagnostics.errors)
        grounds = _deciding(first, shard)
        denied = decision is cedarpy.Decision.Deny and not errors
        if denied and grounds and all(policy.asks for policy in grounds):
            second = cedarpy.is_authorized(asked, shard.handles.permits, entities)
            errors = tuple(second.diagnostics.errors)
            if errors or second.decision is not cedarpy.Decision.Allow:
                return self._explained(shard, second.decision, _deciding(second, shard), errors)
            return self._explained(shard, "softened", grounds, errors, lifts=any(each.lifts for each in _deciding(second, shard)))
        return self._explained(shard, decision, grounds, errors)

    def _entities(self, request: PolicyRequest, shard: Shard, key: tuple[Key, ...]) -> cedarpy.Entities:
        """The shard's entities with this principal and resource; they change rarely, so the last ones are kept.

        Only tools have attributes, and a tool has its own shard, so the resource is part of the shard's number.
        """
        seen = (shard.number, request.principal, shard.view.identities(key))
        entities = self._seen.get(seen)
        if entities is None:
            added = shard.view.entities(key, request.principal, shard.kind, request.resource)
            entities = shard.entities if added is None else shard.entities.with_added_json_str(added)
            if len(self._seen) >= MAX_ENTITIES:
                self._seen.clear()
            self._seen[seen] = entities
        return entities

    def _explained(
        self,
        shard: Shard,
        found: cedarpy.Decision | Literal["softened"],
        grounds: list[Policy],
        errors: tuple[str, ...],
        *,
        lifts: bool = False,
    ) -> Explanation:
        places = tuple(policy.place for policy in grounds)
        considered = len(shard.handles.policies)
        if found == "softened":
            verdict = _softened(grounds, self._version, lifts=lifts)
        elif errors or found is cedarpy.Decision.NoDecision:
            verdict = self._denied("policy.error")
        elif found is cedarpy.Decision.Allow:
            codes = tuple(dict.fromkeys(each.code for each in grounds if each.code))
            verdict = Verdict("allow", codes, self._version, any(each.lifts for each in grounds))
        elif not grounds:
            verdict = self._denied("policy.no_permit")
        else:
            firm = [policy for policy in grounds if not policy.asks]
            verdict = Verdict("deny", _codes(firm, "policy.denied"), self._version)
        return Explanation(verdict, places, errors, considered)

    def _denied(self, code: str) -> Verdict:
        return Verdict("deny", (code,), self._version)


def _deciding(result: cedarpy.AuthzResult, shard: Shard) -> list[Policy]:
    """The policies that decided, in the order of the set."""
    ids = set(result.diagnostics.reasons)
    return [policy for id_, policy in shard.handles.policies.items() if id_ in ids]


def _softened(grounds: list[Policy], version: str, *, lifts: bool) -> Verdict:
    """The verdict of forbids that do not deny: the strictest of what they say, and whether the result is withheld."""
    said = {policy.softened for policy in grounds}
    redact = "redact" in said
    if "ask" in said:
        quorum = max(policy.quorum for policy in grounds)
        return Verdict("ask", _codes(grounds, "policy.ask"), version, lifts, redact, quorum=quorum)
    return Verdict("degrade" if "degrade" in said else "redact", _codes(grounds, "policy.softened"), version, lifts, redact)


def _codes(policies: list[Policy], otherwise: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(policy.code or otherwise for policy in policies))


def _manifest_problems(manifest: PolicyManifest) -> list[Problem]:
    tools = tuple(tool.name for tool in manifest.tools)
    found = []
    for kind, names in (("tool", tools), ("agent", manifest.agents), ("model", manifest.models)):
        found += [f"the {kind} {name!r} is listed twice" for name, count in Counter(names).items() if count > 1]
        found += [f"the name of the {kind} {name!r} cannot be written as UTF-8" for name in names if not writable(name)]
    for tool in manifest.tools:
        if tool.effect not in frozenset(EffectClass):
            found.append(f"the tool {tool.name!r} has the unknown effect class {tool.effect!r}")
    return [Problem("manifest", message) for message in found]


def _invalid(problems: list[Problem]) -> UsageError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [str(problem) for problem in problems]
    message = "\n  ".join([f"{count} in the policies; nothing was activated", *lines])
    return UsageError("policy.invalid", message, problems=lines)


def _version(policies: list[Policy], manifest: PolicyManifest, schema: bytes) -> str:
    texts = sorted(rendered(policy.node) for policy in policies)
    content = (texts, sorted(manifest.agents), sorted(manifest.models), schema.decode())
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()
