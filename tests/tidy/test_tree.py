"""The rules, applied to the repository."""

from __future__ import annotations

import pytest

from tests.tidy import repository, rules


def findings_of(rule: rules.Rule, names: tuple[str, ...]) -> list[str]:
    return [finding for name in names for finding in rule(name, repository.text(name))]


def report(findings: list[str]) -> None:
    assert not findings, "\n" + "\n".join(findings)


@pytest.mark.parametrize("rule", rules.EVERY_FILE, ids=lambda rule: rule.__name__)
def test_every_file(rule: rules.Rule) -> None:
    report(findings_of(rule, repository.files()))


@pytest.mark.parametrize("rule", rules.EVERY_MODULE, ids=lambda rule: rule.__name__)
def test_every_module(rule: rules.Rule) -> None:
    report(findings_of(rule, repository.modules()))


@pytest.mark.parametrize("rule", rules.PACKAGE_MODULE, ids=lambda rule: rule.__name__)
def test_every_module_of_the_package(rule: rules.Rule) -> None:
    report(findings_of(rule, repository.modules(rules.PACKAGE)))


def test_every_folder_of_the_package_is_a_room_with_an_init() -> None:
    modules = repository.modules(rules.PACKAGE)
    rooms = {name.rpartition("/")[0] for name in modules}
    assert sorted(room for room in rooms if f"{room}/__init__.py" not in modules) == []


def test_no_entry_of_the_allow_list_is_stale() -> None:
    used: set[tuple[str, str]] = set()
    for name in repository.modules(rules.PACKAGE):
        rules.broad_excepts(name, repository.text(name), used=used)
    assert rules.BROAD_EXCEPTS - used == set()


def test_the_search_sees_the_repository() -> None:
    names = repository.files()
    assert "tests/tidy/rules.py" in names
    assert "src/quarterdeck/__init__.py" in names
    assert ".ci/run" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".venv/")]
