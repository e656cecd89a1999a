"""Runs a page of the documentation, as its marks say; see :mod:`tests.docs.pages` for the marks."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.docs import pages
from tests.docs.pages import Block

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_PROGRAMS = {"python": [sys.executable], "quarterdeck": [sys.executable, "-m", "quarterdeck.cli"]}


class Stale(AssertionError):
    """A page does not do what it says."""


def run(name: str, page: str, folder: Path) -> int:
    """Run every block of a page in ``folder``, which must be the working directory; how many were run or compared."""
    files = {Path(block.file).stem for block in pages.blocks(page) if block.file.endswith(".py")}
    others = {module: sys.modules.pop(module) for module in files & set(sys.modules)}
    sys.path.insert(0, str(folder))
    try:
        return _run(name, page, folder)
    finally:
        sys.path.remove(str(folder))
        for module in files:
            sys.modules.pop(module, None)
        sys.modules.update(others)


def _run(name: str, page: str, folder: Path) -> int:
    namespace: dict[str, object] = {"__name__": "__main__", "__file__": str(folder / "page.py")}
    printed, done = io.StringIO(), 0
    for block in pages.blocks(page):
        place = f"{name}:{block.line}"
        if block.shown_only:
            if block.language == "python":
                compile(block.text, place, "exec", flags=0x2000)  # top-level await may be shown
        elif block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.mark == "output":
            _compare(place, block.text, printed.getvalue())
            printed, done = io.StringIO(), done + 1
        elif block.language == "python":
            # Padded, so that a traceback names the line of the page.
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * (block.line - 1) + block.text, place, "exec"), namespace)  # noqa: S102 - our own pages
            done += 1
        elif block.language == "console":
            for command, wanted in commands(block):
                _compare(place, wanted, _output(place, command, folder))
                done += 1
    return done


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it must print."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        yield command, wanted


def _output(place: str, command: str, folder: Path) -> str:
    program, *arguments = shlex.split(command, comments=True)
    if program not in _PROGRAMS:
        raise Stale(f"{place}: {program} is not run by this test; mark the block as `not run: …` and say why")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(pages.PACKAGE.parent), str(folder)]), "COLUMNS": "130"}
    done = subprocess.run(
        [*_PROGRAMS[program], *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def _compare(place: str, wanted: str, got: str) -> None:
    if not doctest.OutputChecker().check_output(wanted, got, _FLAGS):
        raise Stale(f"{place}: it says\n{wanted}\nand prints\n{got}")
