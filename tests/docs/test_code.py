"""What the pages show runs, and prints what they say it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages, running

WITH_CODE = [
    name for name in pages.names() if any(block.language in ("python", "console") for block in pages.blocks(pages.text(name)))
]
LANGUAGES = {"python", "console", "text", "sh", "toml", "cedar", "mermaid", "json"}
MARKS = ("file: ", "output", "not run: ")


@pytest.mark.parametrize("name", WITH_CODE)
def test_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    running.run(name, pages.text(name), tmp_path)


def test_the_readme_and_the_quickstart_really_run_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert running.run("README.md", pages.text("README.md"), tmp_path) >= 2


@pytest.mark.parametrize("name", pages.names())
def test_every_block_has_a_language_and_a_known_mark(name: str) -> None:
    for block in pages.blocks(pages.text(name)):
        assert block.language in LANGUAGES, f"{name}:{block.line}"
        assert not block.mark or block.mark.startswith(MARKS) or block.mark.startswith("generated: "), f"{name}:{block.line}"


@pytest.mark.parametrize(
    "page",
    [
        "```python\nraise SystemError\n```\n",
        "```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```\n",
        "<!-- not run: shown -->\n```python\nif\n```\n",
        '```console\n$ python -c "print(1)"\n2\n```\n',
        "```console\n$ rm everything\n```\n",
    ],
)
def test_a_page_that_lies_is_found(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((running.Stale, SystemError, SyntaxError)):
        running.run("page.md", page, tmp_path)


def test_a_page_that_does_what_it_says_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (
        "<!-- file: one.py -->\n```python\nprint('from a file')\n```\n\n"
        "```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n<!-- output -->\n```text\n1\n```\n\n"
        "```console\n$ python one.py\nfrom ...\n```\n"
    )
    assert running.run("page.md", page, tmp_path) == 4
