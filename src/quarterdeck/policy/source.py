"""Policy texts, read: every policy with its place, its syntax tree and its annotations, or the list of what is wrong.

The parser of the library says what it did not expect and not where. Statements are therefore cut apart here (a ``;``
outside of strings and comments ends one) and read one by one; the line of a mistake is the first line with which the
parser's complaint is no longer that the text ended too early.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import resources
from typing import Final

import cedarpy
from cedarpy import pst

from quarterdeck.core.specs import MAX_QUORUM

MAX_POLICIES: Final = 5000
"""Policies in one set."""
MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024
"""All texts of one set together."""

_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;', re.DOTALL)
_COMMENT = re.compile(r"//[^\n]*")
_CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_ANNOTATIONS = ("reason", "outcome", "lifts", "shadow", "owner", "quorum")
_LIFTED = "labels"
_QUORUMS = frozenset(str(people) for people in range(2, MAX_QUORUM + 1))
_RESERVED = "policy."
SOFTENED: Final = ("ask", "degrade", "redact")
"""What a forbid may do instead of denying, the strictest first."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. ``id`` is ``source#number``, ``place`` is ``source:line``; ``softened`` only on a forbid that does not deny but
    asks a person, degrades or redacts, ``quorum`` how many different
    people have to be asked by one that asks, ``lifts`` only on a permit that holds although untrusted content decided; one in ``shadow``
    is asked, and never obeyed.
    """

    id: str
    place: str
    node: pst.Template
    code: str | None
    softened: str | None
    lifts: bool = False
    shadow: bool = False
    owner: str = ""
    quorum: int = 1

    @property
    def asks(self) -> bool:
        """Whether it is a forbid that does something milder than to deny."""
        return self.softened is not None

    @property
    def forbids(self) -> bool:
        """Whether this is a forbid."""
        return self.node.effect == "forbid"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change before the set can be activated."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


def default_policies() -> Mapping[str, str]:
    """The set of a project that brings none: ``default.cedar``, which permits every proposal.

    Without policies of your own, autonomy, allowed tools, schemas and budgets still decide.
    """
    text = resources.files("quarterdeck.policy").joinpath("default.cedar").read_text(encoding="utf-8")
    return {"default.cedar": text}


def read_policies(sources: Mapping[str, str]) -> tuple[list[Policy], list[Problem]]:
    """Every policy of every text in order, and every problem; only a set without problems may be used."""
    policies: list[Policy] = []
    problems: list[Problem] = []
    if sum(len(text.encode("utf-8", "surrogatepass")) for text in sources.values()) > MAX_SOURCE_BYTES:
        return [], [Problem("", f"the policy texts together are larger than {MAX_SOURCE_BYTES} bytes")]
    for source, text in sources.items():
        for number, (line, statement) in enumerate(_statements(text), start=1):
            node = _parsed(source, line, statement, problems)
            if node is not None:
                policies.append(_annotated(f"{source}#{number}", f"{source}:{line}", node, problems))
    if len(policies) > MAX_POLICIES:
        problems.append(Problem("", f"the set has {len(policies)} policies; the limit is {MAX_POLICIES}"))
    if not problems and all(policy.forbids for policy in policies):
        problems.append(Problem("", "no policy permits anything; add for example `permit(principal, action, resource);`"))
    return policies, problems


def within(text: str, *, tenant: str | None = None, route: str | None = None, shadow: bool = False) -> str:
    """The same policies, each only for this tenant and this route, or in shadow. Lines stay where they are.

    >>> within("permit(principal, action, resource);", tenant="acme")
    'permit(principal, action, resource) when { principal.tenant == "acme" };'
    """
    said = [f'principal.{name} == "{value}"' for name, value in (("tenant", tenant), ("route", route)) if value is not None]
    condition = f" when {{ {' && '.join(said)} }}" if said else ""
    pieces, start = [], 0
    for end in [found.start() for found in _TOKEN.finditer(text) if found[0] == ";"]:
        statement = text[start:end]
        bare = _COMMENT.sub(lambda found: " " * len(found[0]), statement)
        begin = len(bare) - len(bare.lstrip())
        mark = '@shadow("set") ' if shadow and "@shadow" not in bare else ""
        # After a comment at its end the condition would be part of the comment.
        kept = statement[: len(bare.rstrip())]
        pieces.append(statement[:begin] + mark + kept[begin:] + condition + statement[len(kept) :] + ";")
        start = end + 1
    return "".join(pieces) + text[start:]


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with the line on which its first word stands."""
    start = 0
    ends = [found.end() for found in _TOKEN.finditer(text) if found[0] == ";"]
    for end in [*ends, len(text)]:
        statement = text[start:end]
        bare = _COMMENT.sub(lambda found: " " * len(found[0]), statement)
        if bare.strip():
            begin = len(bare) - len(bare.lstrip())
            yield text.count("\n", 0, start + begin) + 1, statement[begin:]
        start = end


def _parsed(source: str, line: int, statement: str, problems: list[Problem]) -> pst.Template | None:
    try:
        found = cedarpy.policies_to_pst(statement)
    except ValueError as error:
        problems.append(Problem(f"{source}:{line + _line_of_mistake(statement)}", f"cannot be parsed: {error}"))
        return None
    if found.templates:
        problems.append(Problem(f"{source}:{line}", "is a template (?principal, ?resource); write one policy per case"))
        return None
    return next(iter(found.static_policies.values()))


def _line_of_mistake(statement: str) -> int:
    """How many lines down: by bisection, since a mistake stays one however the text goes on."""
    lines = statement.split("\n")

    def mistaken(count: int) -> bool:
        try:
            cedarpy.policies_to_pst("\n".join(lines[:count]))
        except ValueError as error:
            return "unexpected end of input" not in str(error)
        return False

    return min(bisect_left(range(1, len(lines) + 1), True, key=mistaken), len(lines) - 1)


def _annotated(id_: str, place: str, node: pst.Template, problems: list[Problem]) -> Policy:
    notes = node.annotations
    for name in notes:
        close = get_close_matches(name, _ANNOTATIONS, n=1, cutoff=0.75)
        if close and close[0] != name:
            problems.append(Problem(place, f"the annotation @{name} means nothing; did you mean @{close[0]}?"))
    code = notes.get("reason")
    if code is not None and (not _CODE.fullmatch(code) or code.startswith(_RESERVED)):
        say = f'@reason("{code}") is not a code of your own; write lower-case words, best with dots, such as refund.too_large'
        problems.append(Problem(place, say))
    outcome = notes.get("outcome")
    if outcome not in (None, "deny", *SOFTENED):
        problems.append(Problem(place, f'@outcome("{outcome}") is unknown; it is "ask", "degrade", "redact" or "deny"'))
    if outcome is not None and node.effect == "permit":
        problems.append(Problem(place, "@outcome belongs on a forbid; a permit always allows"))
    lifts = notes.get("lifts")
    if lifts is not None and (lifts != _LIFTED or node.effect != "permit"):
        problems.append(Problem(place, f'@lifts("{lifts}") means nothing here; on a permit, it is @lifts("{_LIFTED}")'))
    quorum = notes.get("quorum")
    if quorum is not None and (outcome != "ask" or node.effect != "forbid" or quorum not in _QUORUMS):
        problems.append(Problem(place, f'@quorum("{quorum}") is 2-{MAX_QUORUM} people, on a forbid with @outcome("ask")'))
    return Policy(
        id_,
        place,
        replace(node, id=id_),
        code,
        softened=outcome if outcome in SOFTENED and node.effect == "forbid" else None,
        lifts=lifts is not None,
        shadow="shadow" in notes,
        owner=notes.get("owner") or "",
        quorum=int(quorum) if quorum in _QUORUMS else 1,
    )
