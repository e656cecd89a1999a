"""Every stable code in the source, found in its syntax trees.

A code is a dotted literal of a *family*; families are the first words of whatever is passed as a code to an error class. Codes that are
put together at run time (`f"budget.{…}"`) are expanded by :data:`COMPOSED`; a new one is an error here until it is listed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module

from quarterdeck.core.audit import ACTIONS
from quarterdeck.core.events import KINDS
from quarterdeck.core.identity import Action
from quarterdeck.core.vocabulary import Autonomy
from tests.docs.pages import PACKAGE

ERRORS = ("UsageError", "Unauthenticated", "Refused", "Unavailable", "OwnershipLost", "Corrupt")
_ALIASES = {"RefusedError": "Refused", "_refused": "Refused", "Unreadable": "", "Superseded": "OwnershipLost"}
_CARRIERS = {
    "ModelFailure": 0,
    "ToolFailure": 0,
    "Revoked": 0,
    "_deny": 0,
    "Wait": 1,
    "Finish": 2,
    "ClientError": 0,
    "Unreachable": 0,
    "Lost": 0,
}
"""What else carries a code, and as which argument."""
SEARCHED_FOR_TESTS = ("testing/scripted.py",)
"""Of the test tools, what meets users."""
ESSAYS = ("quarterdeck.models", "quarterdeck.policy")
"""Rooms whose essay is a promise of codes, whatever part of them raises each."""

COMPOSED: dict[str, tuple[str, ...]] = {
    "admission.{}": ("admission.*",),
    "store.{}": ("store.*",),
    "run.{}": ("run.epoch", "run.seq", "run.run", "run.incarnation", "run.terminal"),
    "autonomy.{}": tuple(f"autonomy.{level}" for level in Autonomy),
    "approval.{}": ("approval.rejected", "approval.expired", "approval.answered"),
    "budget.{}": tuple(
        f"budget.{name}"
        for name in (
            "turns",
            "model_calls",
            "delegations",
            "tools",
            "tokens",
            "cost",
            "route",
            "tenant",
            "agent",
            "thread",
            "all",
        )
    ),
    "budget.near_{}": tuple(f"budget.near_{name}" for name in ("turns", "model_calls", "tokens", "cost")),
    "fact.{}": ("fact.policy", "fact.release"),
    "label.untrusted_{}": ("label.untrusted_target", "label.untrusted_amount"),
    "limit.{}": ("limit.*",),
    "model.{}": ("model.timeout", "model.connection", "model.unknown"),
    "tool.{}": ("tool.timeout", "tool.unreachable", "tool.failed"),
}
_MESSAGES = ("model.delta", "http.disconnect", "http.response.start", "http.response.body")
"""The ephemeral message of streams, and those between a server and its application."""
_NAMES = frozenset({*KINDS, *Action, *_MESSAGES, *(ACTIONS - {"approval.rejected", "approval.answered"})})
"""Dotted names of other things."""
_BESIDE = ("audit", "ledger", "fact", "switch", "label", "schema", "cli", "child", "signal", "timer", "compensation")
"""Families whose codes are returned or printed only, never passed to a carrier."""
_DOTTED = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z0-9_]*|\.[a-z_]*\{\})+\Z")
_PROMISED = re.compile(r"``([a-z]+\.[a-z_]+)``")
_FILES = (".db", ".toml", ".cedar", ".md", ".txt", ".sql", ".json", ".gguf", ".py", ".lock")


class Found:
    """Codes, and for those that are raised the classes of error."""

    def __init__(self) -> None:
        self.codes: set[str] = set()
        self.classes: dict[str, set[str]] = {}
        self.unexpanded: set[str] = set()


def sources() -> dict[str, str]:
    """The text of every module that can give a code."""
    paths = [path for path in PACKAGE.rglob("*.py") if "testing" not in path.relative_to(PACKAGE).parts]
    paths += [PACKAGE / name for name in SEARCHED_FOR_TESTS]
    return {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def search(texts: dict[str, str], essays: tuple[str, ...] = ESSAYS) -> Found:
    """Every code of these modules, and those that the essays of rooms promise."""
    trees = {name: _tree(text) for name, text in texts.items() if name != "__init__.py"}
    found, families = Found(), set(_BESIDE)
    for tree in trees.values():
        for kind, code in _carried(tree):
            families.add(code.partition(".")[0])
            for each in _expanded(code, found):
                found.codes.add(each)
                if kind in ERRORS:
                    found.classes.setdefault(each, set()).add(kind)
    for tree in trees.values():
        for text in _literals(tree):
            if _DOTTED.match(text) and text.partition(".")[0] in families and not text.endswith(_FILES) and text not in _NAMES:
                found.codes.update(_expanded(text, found))
    for room in essays:
        promised = _PROMISED.findall(import_module(room).__doc__ or "")
        found.codes.update(code for code in promised if code.partition(".")[0] in families)
    return found


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _expanded(code: str, found: Found) -> tuple[str, ...]:
    if "{}" not in code:
        return (code,)
    if code not in COMPOSED:
        found.unexpanded.add(code)
    return COMPOSED.get(code, ())


def _carried(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What is passed as a code: (the name of the carrier, the code)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = _ALIASES.get(name, name) or "policy"
            place = _CARRIERS.get(name, 0 if name in (*ERRORS, "policy") else None)
            if place is not None and len(node.args) > place:
                code = _text(node.args[place])
                if code and (_DOTTED.match(code) or place == 2) and not _is_guard(name, node):
                    yield name, code
        elif isinstance(node, ast.Tuple) and len(node.elts) > 1 and getattr(node.elts[0], "id", "") in (*ERRORS, *_ALIASES):
            code = _text(node.elts[1])
            if code:
                yield _ALIASES.get(node.elts[0].id, node.elts[0].id), code  # type: ignore[attr-defined]


def _is_guard(name: str, node: ast.Call) -> bool:
    """``Refused("epoch", …)`` of a store is an answer, not an error; its guard has no dot."""
    return name == "Refused" and "." not in (_text(node.args[0]) or "")


def _text(node: ast.expr) -> str | None:
    """A literal, with ``{}`` for each part that is filled in at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    return None


def _literals(tree: ast.AST) -> Iterator[str]:
    """Every text in the code, docstrings apart."""
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node
    }
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in inside and id(node) not in notes:
            text = _text(node)
            if text is not None:
                yield text
