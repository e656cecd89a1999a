"""The import contracts of pyproject.toml catch what they are there for.

`make check` applies them to the real package. Here they are applied to a skeleton of it (every room, empty), first as
it is and then with one forbidden thing planted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy import repository

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
PACKAGE = repository.ROOT / "src" / "quarterdeck"


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """The rooms of the package without their contents, beside the real contracts."""
    package = tmp_path / "src" / "quarterdeck"
    for module in [PACKAGE / "__init__.py", *PACKAGE.glob("*/__init__.py")]:
        place(package, module.relative_to(PACKAGE).as_posix(), "")
    (tmp_path / "pyproject.toml").write_bytes((repository.ROOT / "pyproject.toml").read_bytes())
    return package


def place(package: Path, name: str, text: str) -> None:
    path = package / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def lint(package: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=package.parents[1], env=environment, capture_output=True, text=True, check=False)


def test_the_rooms_alone_pass(skeleton: Path) -> None:
    result = lint(skeleton)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 kept, 0 broken" in result.stdout


@pytest.mark.parametrize("unplaced", ["attic/__init__.py", "attic.py"])
def test_a_room_without_a_place_fails(skeleton: Path, unplaced: str) -> None:
    place(skeleton, unplaced, "")
    result = lint(skeleton)
    assert result.returncode != 0
    assert "attic" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("core", "ports"),
        ("ports", "store"),
        ("store", "policy"),
        ("models", "tools"),
        ("policy", "gate"),
        ("resilience", "gate"),
        ("gate", "resilience"),
        ("gate", "engine"),
        ("engine", "dispatch"),
        ("dispatch", "engine"),
        ("engine", "app"),
        ("app", "cli"),
        ("app", "server"),
        ("server", "cli"),
        ("cli", "testing"),
        ("core", "testing"),
        ("client", "core"),
        ("client", "app"),
        ("client", "server"),
        ("core", "client"),
    ],
)
def test_an_import_that_points_upward_or_sideways_fails(skeleton: Path, importer: str, imported: str) -> None:
    place(skeleton, f"{importer}/planted.py", f"def later():\n    import quarterdeck.{imported}\n")
    result = lint(skeleton)
    assert result.returncode != 0
    assert f"quarterdeck.{importer}" in result.stdout
    assert f"quarterdeck.{imported}" in result.stdout


@pytest.mark.parametrize(
    "module",
    ["asyncio", "time", "random", "secrets", "uuid", "os", "os.path", "socket", "logging", "apsw", "sqlite3"],
)
def test_an_impure_import_in_core_fails(skeleton: Path, module: str) -> None:
    place(skeleton, "core/planted.py", f"import {module}\n")
    result = lint(skeleton)
    assert result.returncode != 0
    assert "core is pure" in result.stdout


def test_the_same_import_outside_core_passes(skeleton: Path) -> None:
    place(skeleton, "app/planted.py", "import asyncio, os, time\nfrom quarterdeck.core import __doc__\n")
    assert lint(skeleton).returncode == 0
