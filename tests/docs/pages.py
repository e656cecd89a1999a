"""The pages of the documentation, taken apart: code blocks, headings, links, tables, generated parts.

A *mark* is an HTML comment on the line above a code block; it says what the block is, and readers do not see it:

* none, on ``python``: it runs. All such blocks of a page run in order, in one namespace, in an empty folder.
* ``<!-- output -->``: what the page has printed since the last such block.
* ``<!-- file: NAME -->``: the block is that file.
* none, on ``console``: each ``$ command`` runs, and must print what follows it; ``...`` stands for anything.
* ``<!-- not run: WHY -->``: shown only; Python must compile all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "quarterdeck"

_FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_GENERATED = re.compile(r"<!-- generated: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is where its first line stands, ``mark`` the comment above it."""

    line: int
    language: str
    mark: str
    text: str

    @property
    def shown_only(self) -> bool:
        return self.mark.startswith("not run: ")

    @property
    def file(self) -> str:
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""


@cache
def names() -> tuple[str, ...]:
    """The pages, as paths relative to the repository."""
    return ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    found = []
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start("text")) + 1
        found.append(Block(line, match["language"], match["mark"] or "", match["text"]))
    return found


def prose(page: str) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page)


def generated(page: str) -> dict[str, str]:
    """The parts of a page that code writes, by name."""
    return dict(_GENERATED.findall(page))


def regenerated(page: str, parts: dict[str, str]) -> str:
    """The page with its generated parts written anew."""
    return _GENERATED.sub(lambda match: f"<!-- generated: {match[1]} -->\n{parts[match[1]]}<!-- end -->", page)


def anchors(page: str) -> set[str]:
    """The fragments that a link can name: headings as GitHub spells them."""
    found = set()
    for _, title in _HEADING.findall(prose(page)):
        plain = re.sub(r"[`*_]", "", title).strip().lower()
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain)))
    return found


def links(page: str) -> list[str]:
    return _LINK.findall(prose(page))


def spans(page: str) -> list[str]:
    """The inline code of a page."""
    return _SPAN.findall(prose(page))


def section(page: str, title: str) -> str:
    """What stands under a heading, down to the next one of the same or a higher level."""
    for match in _HEADING.finditer(page):
        if match[2].strip() == title:
            rest = page[match.end() :]
            end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
            return rest[: end.start()] if end else rest
    raise KeyError(f"there is no heading {title!r}")


def rows(part: str) -> list[list[str]]:
    """The cells of every table row in a part of a page, without heads and rules."""
    return [cells for table in tables(part) for cells in table]


def tables(part: str) -> Iterator[list[list[str]]]:
    """The tables of a part of a page: their rows, without the head."""
    lines: list[str] = []
    for line in [*prose(part).splitlines(), ""]:
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            yield [_cells(row) for row in lines[2:]]
            lines = []


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip()[1:-1])]
