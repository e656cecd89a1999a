"""Which attributes a policy reads, found in its syntax tree.

The answer may be too large and must never be too small (an attribute that is missed here would look absent to ``has``):
an expression that is not a plain path, such as a record compared as a whole or an entity chosen by ``if``, counts as
reading all of it, and ``has`` as reading the attribute. A kind of expression that is not known here is a type error in
this file, not a silent omission.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from cedarpy import pst

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reads:
    """``paths`` start with ``principal``, ``resource`` or ``context``; ``names`` are those of the first two read by
    identity.
    """

    paths: frozenset[Path]
    names: frozenset[str]

    def below(self, *root: str) -> list[Path]:
        """The rest of each path that starts with ``root``; an empty rest means all of it."""
        depth = len(root)
        meeting = (path for path in self.paths if path[:depth] == root[: len(path)])
        return [path[depth:] for path in meeting]


def joined(every: Iterable[Reads]) -> Reads:
    """What several policies read together."""
    found = list(every)
    paths = frozenset[Path]().union(*(each.paths for each in found))
    return Reads(paths, frozenset[str]().union(*(each.names for each in found)))


def reads_of(policy: pst.Template) -> Reads:
    """What the conditions of a policy read. Its scope is not a condition: a shard has settled it.

    >>> import cedarpy
    >>> text = 'forbid(principal, action, resource) when { context.args has note && principal == Agent::"a" };'
    >>> found = reads_of(cedarpy.policies_to_pst(text).static_policies["policy0"])
    >>> sorted(found.paths), sorted(found.names)
    ([('context', 'args', 'note')], ['principal'])
    """
    walk = _Walk()
    for clause in policy.clauses:
        walk.visit(clause.expr)
    whole = {path[0] for path in walk.paths if len(path) == 1}
    return Reads(frozenset(walk.paths), frozenset(walk.names | (whole - {"context"})))


def path_of(expr: pst.Expr) -> Path | None:
    """``context.args.note`` as ``("context", "args", "note")``; nothing for an expression that is no plain path."""
    attributes: list[str] = []
    while isinstance(expr, pst.GetAttr):
        attributes.append(expr.attr)
        expr = expr.base
    return (expr.name, *reversed(attributes)) if isinstance(expr, pst.Var) else None


class _Walk:
    def __init__(self) -> None:
        self.paths: set[Path] = set()
        self.names: set[str] = set()

    def visit(self, expr: pst.Expr) -> None:
        match expr:
            case pst.Var():
                self._read((expr.name,))
            case pst.GetAttr():
                self._attribute(expr, ())
            case pst.HasAttr():
                self._attribute(expr.base, expr.attrs)
            case pst.BinaryOp(op="eq" | "not_eq" | "in"):
                self._identity(expr.left)
                self._identity(expr.right)
            case pst.BinaryOp():
                self.visit(expr.left)
                self.visit(expr.right)
            case pst.Is():
                if expr.in_expr is not None:
                    self._identity(expr.base)
                    self._identity(expr.in_expr)
                elif not isinstance(expr.base, pst.Var):
                    self.visit(expr.base)
            case pst.UnaryOp():
                self.visit(expr.arg)
            case pst.Like():
                self.visit(expr.base)
            case pst.IfThenElse():
                for part in (expr.cond, expr.then_expr, expr.else_expr):
                    self.visit(part)
            case pst.Set():
                for part in expr.elements:
                    self.visit(part)
            case pst.Record():
                for part in expr.fields.values():
                    self.visit(part)
            case pst.Slot() | pst.BoolLit() | pst.LongLit() | pst.StringLit() | pst.EntityLit():
                pass
            case _:
                assert_never(expr)

    def _read(self, path: Path) -> None:
        if path[0] != "action":
            self.paths.add(path)

    def _attribute(self, base: pst.Expr, attributes: Path) -> None:
        path = path_of(base)
        if path is not None:
            self._read((*path, *attributes))
        elif isinstance(base, pst.GetAttr):
            self.visit(base.base)
        else:
            self.visit(base)

    def _identity(self, expr: pst.Expr) -> None:
        """An operand of which only the identity matters: of an entity, that is its name."""
        if isinstance(expr, pst.Var) and expr.name in ("principal", "resource"):
            self.names.add(expr.name)
        else:
            self.visit(expr)
