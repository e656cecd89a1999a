"""Links lead somewhere, what is named exists, and every page speaks of the product alone."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

import click
import pytest
import typer.main

from quarterdeck.cli.commands import app
from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.policy import CedarEngine, PolicyManifest, PolicyTool
from quarterdeck.tools.function import FunctionTool
from tests.docs import pages

ELSEWHERE = re.compile(r"https://(www\.cedarpolicy\.com)\b")
"""The only places outside that a page may send readers to."""
SPOKEN = [name for name in pages.names() if name != "docs/cli.md"]

# Written in parts, so that this file can be searched for them too.
FORBIDDEN = re.compile(
    "|".join(
        (
            r"\bsub" + r"agents?\b",
            r"\bhel" + r"pers?\b",
            r"\b(?:the|our) le" + r"ad\b",
            r"\bsess" + r"ions?\b",
            r"\bstakeholder",
            r"\bS[0-4]\b",
            r"\.\./sha" + r"red",
            r"/wo" + r"rk\b",
            r"\bcoming so" + r"on\b",
            r"\bWI" + r"P\b",
            r"\bTB" + r"D\b",
            r"\bas an A" + r"I\b",
        )
    ),
    re.IGNORECASE,
)

_PATH = re.compile(r"[\w.-]+(/[\w.*-]+)*\.(py|sql|cedar|toml|md|yml|txt)\Z")
_FOLDER = re.compile(r"[a-z_]+(/[a-z_]+)*/?\Z")
_ROOTS = ("", "src/quarterdeck/", "docs/")
_FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", "proof", "requirements")
_MADE = re.compile(r"build/|.*\.db(-wal|\.lock)?\Z")


def broken_links(name: str, page: str) -> list[str]:
    """Links of a page that lead nowhere."""
    found = []
    for target in pages.links(page):
        if target.startswith(("http:", "https:")):
            found += [] if ELSEWHERE.match(target) else [f"{name}: {target} leads outside"]
            continue
        path, _, fragment = target.partition("#")
        file = (pages.ROOT / name).parent / path if path else pages.ROOT / name
        if not file.exists():
            found.append(f"{name}: {target} does not exist")
        elif fragment and fragment not in pages.anchors(page if not path else file.read_text(encoding="utf-8")):
            found.append(f"{name}: {target} names no heading")
    return found


def missing_paths(name: str, page: str) -> list[str]:
    """Files and folders that a page names in inline code, and that are not there."""
    own = {block.file for block in pages.blocks(page)}
    found = []
    for span in pages.spans(page):
        is_folder = _FOLDER.match(span) is not None and span.split("/")[0] in _FOLDERS and "/" in span
        if (_PATH.match(span) or is_folder) and span not in own and not _MADE.match(span):
            if PurePosixPath(span).name in ("quarterdeck.toml", "default.cedar"):
                continue
            if not any((pages.ROOT / root / span).exists() for root in _ROOTS):
                found.append(f"{name}: {span} does not exist")
    return found


def unknown_commands(name: str, page: str) -> list[str]:
    """Commands of `quarterdeck` and targets of make that a page names, and that are not there."""
    top = typer.main.get_command(app)
    makefile = pages.text("Makefile")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    lines = pages.spans(page)
    for block in pages.blocks(page):
        if block.language in ("sh", "console"):
            lines += [line.removeprefix("$ ") for line in block.text.splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line.replace("'", "").replace('"', ""), comments=True)
        if words[:1] == ["make"] and len(words) > 1 and words[1] not in targets:
            found.append(f"{name}: there is no `make {words[1]}`")
        if words[:1] == ["quarterdeck"]:
            command: click.Command | None = top
            for word in words[1:]:
                if not hasattr(command, "commands"):
                    break
                if not word.startswith("-") and not word.isupper():
                    command = command.commands.get(word)  # type: ignore[union-attr]
            if command is None:
                found.append(f"{name}: there is no `{line}`")
    return found


@pytest.mark.parametrize("name", pages.names())
def test_links_lead_somewhere(name: str) -> None:
    assert broken_links(name, pages.text(name)) == []


@pytest.mark.parametrize("name", pages.names())
def test_files_that_are_named_exist(name: str) -> None:
    assert missing_paths(name, pages.text(name)) == []


@pytest.mark.parametrize("name", pages.names())
def test_commands_that_are_named_exist(name: str) -> None:
    assert unknown_commands(name, pages.text(name)) == []


@pytest.mark.parametrize("name", [*pages.names(), "CONTRIBUTING.md"])
def test_pages_speak_of_the_product_alone(name: str) -> None:
    assert FORBIDDEN.findall(pages.text(name)) == []


@pytest.mark.parametrize("check", [broken_links, missing_paths, unknown_commands], ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "planted",
    [
        "[a](docs/nowhere.md) `core/nowhere.py` `quarterdeck nothing`\n",
        "[a](#nowhere) `tests/nowhere` `make nothing`\n",
        "[a](https://example.com/x) `docs/nowhere.md`\n\n```sh\nquarterdeck runs nothing\n```\n",
    ],
)
def test_a_planted_mistake_is_found(check: object, planted: str) -> None:
    assert len(check("README.md", planted)) == 1  # type: ignore[operator]


def test_a_planted_word_is_found() -> None:
    assert FORBIDDEN.search("made by a sub" + "agent") and FORBIDDEN.search("see S" + "2 above")
    assert not FORBIDDEN.search("assessed, obsession, a workload, in the work queue")


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name in reached or not name.endswith(".md"):
            continue
        reached.add(name)
        for target in pages.links(pages.text(name)):
            path = target.partition("#")[0]
            if path and not path.startswith("http"):
                file = ((pages.ROOT / name).parent / path).resolve()
                waiting.append(file.relative_to(pages.ROOT).as_posix())
    assert set(pages.names()) - reached == set()


@pytest.mark.parametrize(
    "name", [name for name in pages.names() if any(b.language == "cedar" for b in pages.blocks(pages.text(name)))]
)
def test_policies_that_are_shown_are_valid(name: str) -> None:
    for block in pages.blocks(pages.text(name)):
        if block.language == "cedar":
            CedarEngine.build(block.text, _manifest())


def _manifest() -> PolicyManifest:
    def issue_refund(order_id: str, amount_cents: int, customer: str) -> str:
        return "refunded"

    def send_letter(to: str, text: str) -> str:
        return "sent"

    tools = [FunctionTool(each, effect=EffectClass.EXTERNAL).spec for each in (issue_refund, send_letter)]
    return PolicyManifest(tuple(PolicyTool.of(spec) for spec in tools), agents=("desk", "greeter"), models=("small",))
