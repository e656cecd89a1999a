"""Every named number of the source that limits something, with its value."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib import import_module

from tests.docs.pages import PACKAGE

Name = tuple[str, str]
"""A module's path inside the package, and the constant's name."""

NOT_LIMITS: Mapping[Name, str] = {
    ("core/windows.py", "MILLION"): "a unit",
    ("core/dependency.py", "HIGH_RATIO"): "where a hint begins",
    ("store/sqlite/opening.py", "APPLICATION_ID"): "a mark",
    ("store/sqlite/opening.py", "SCHEMA"): "a version",
    ("store/postgres/opening.py", "SCHEMA"): "a version",
    ("store/postgres/opening.py", "COMPATIBLE"): "a version",
    ("store/sqlite/frames.py", "HEADER"): "a format",
    ("store/sqlite/frames.py", "FAULT"): "an exit code",
    ("cli/reference.py", "WIDTH"): "a layout",
}
"""Numbers with a name that limit nothing, each with what it is."""


def constants() -> dict[Name, float]:
    """Module-level public constants that are numbers, test tools apart."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] == "testing":
            continue
        for name in assigned(path.read_text(encoding="utf-8")):
            value = getattr(import_module(".".join(["quarterdeck", *inside.with_suffix("").parts])), name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[inside.as_posix(), name] = value
    return found


def assigned(text: str) -> list[str]:
    """The names of public constants that a module assigns."""
    found = []
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        found += [each.id for each in targets if isinstance(each, ast.Name) and each.id.isupper() and not each.id.startswith("_")]
    return found


def stated(rows: list[list[str]]) -> dict[Name, float]:
    """What a page says: rows of name, module, value with its unit, meaning."""
    return {(module.strip("`"), name.strip("`")): float(value.split()[0].replace(",", "")) for name, module, value, _ in rows}
