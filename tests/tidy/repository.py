"""What belongs to the repository: the files that git tracks, and those that it would add."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MADE_BY_TOOLS = {".git", ".venv", ".lock-venv", "build", "dist", "__pycache__"}


@cache
def files() -> tuple[str, ...]:
    """POSIX paths relative to the root, sorted; in an unpacked archive, which has no git, whatever no tool made."""
    if (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
        found = {name for name in listed if name and (ROOT / name).is_file()}
    else:
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        found = {path.as_posix() for path in paths if not _is_made(path)}
    return tuple(sorted(found))


@cache
def text(name: str) -> str:
    """The contents; bytes that are not UTF-8 are replaced, so that a binary file can be searched as well."""
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def modules(under: str = "") -> tuple[str, ...]:
    """The Python files below a folder."""
    return tuple(name for name in files() if name.startswith(under) and name.endswith(".py"))


def _is_made(path: Path) -> bool:
    return any(part in _MADE_BY_TOOLS or part.endswith("_cache") for part in path.parts)
