"""Each rule finds a planted violation, and stays quiet where there is none."""

from __future__ import annotations

import pytest

from tests.tidy import rules

MODULE = "src/quarterdeck/gate/facts.py"
DOC = '"""What this is."""\n'

PLANTED = [
    (rules.module_size, MODULE, "x = 1\n" * 601),
    (rules.module_size, MODULE, "x = 1\n" * 600 + "y = 2"),
    (rules.function_size, MODULE, "def long():\n" + "    x = 1\n" * 60),
    (rules.function_size, MODULE, "class A:\n    async def long(self):\n" + "        x = 1\n" * 60),
    *((rules.module_name, f"src/quarterdeck/gate/{name}.py", "") for name in sorted(rules.VAGUE_NAMES)),
    (rules.module_name, "src/quarterdeck/gate/lease_manager.py", ""),
    (rules.module_name, "src/quarterdeck/utils/words.py", ""),
    (rules.module_name, "tests/gate/Helpers.py", ""),
    (rules.unfinished, "docs/page.md", "# " + "TO" + "DO: say more"),
    (rules.unfinished, MODULE, "x = 1  # FIX" + "ME"),
    (rules.unfinished, MODULE, "# X" + "XX"),
    *((rules.machine_traces, "docs/page.md", f"see {trace}x") for trace in rules.MACHINE_TRACES),
    (rules.docstrings, MODULE, ""),
    (rules.docstrings, "src/quarterdeck/gate/__init__.py", "from x import y\n"),
    (rules.docstrings, "src/quarterdeck/gate/__init__.py", '"""   """\n'),
    (rules.docstrings, MODULE, DOC + "class Public:\n    x = 1\n"),
    (rules.docstrings, MODULE, DOC + "def public():\n    return 1\n"),
    (rules.docstrings, MODULE, DOC + "async def public():\n    return 1\n"),
    (rules.docstrings, MODULE, DOC + "if True:\n    def public():\n        return 1\n"),
    (rules.docstrings, MODULE, DOC + "try:\n    pass\nexcept OSError:\n    class Public: ...\n"),
    (rules.broad_excepts, MODULE, "try:\n    f()\nexcept:\n    pass\n"),
    (rules.broad_excepts, MODULE, "try:\n    f()\nexcept Exception:\n    pass\n"),
    (rules.broad_excepts, MODULE, "try:\n    f()\nexcept (OSError, builtins.BaseException) as e:\n    pass\n"),
    (rules.broad_excepts, MODULE, "try:\n    f()\nexcept* Exception:\n    pass\n"),
    (rules.broad_excepts, MODULE, "with contextlib.suppress(Exception):\n    f()\n"),
    (rules.broad_excepts, MODULE, "try:\n    f()\nexcept Exception:  # the one broad except of nowhere\n    pass\n"),
    *((rules.unsafe_imports, MODULE, f"def f():\n    import {name}\n") for name in sorted(rules.UNSAFE_MODULES)),
    (rules.unsafe_imports, MODULE, "from dill.session import dump\n"),
    (rules.port_size, "src/quarterdeck/ports/wide.py", "class P:\n" + "    def m(self): ...\n" * 16),
    (rules.sql_place, "src/quarterdeck/gate/facts.sql", "SELECT 1"),
    (rules.sql_place, "tests/store/facts.sql", "SELECT 1"),
]

CLEAN = [
    (rules.module_size, MODULE, "x = 1\n" * 600),
    (rules.function_size, MODULE, "def fits():\n" + "    x = 1\n" * 59),
    (rules.module_name, "src/quarterdeck/core/database.py", ""),
    (rules.module_name, "src/quarterdeck/core/base64_text.py", ""),
    (rules.unfinished, MODULE, "method = todo_list\n"),
    (rules.machine_traces, MODULE, "path = root / 'work' / 'x'\n"),
    (rules.docstrings, "src/quarterdeck/gate/_private.py", "def f(): ...\n"),
    (rules.docstrings, MODULE, DOC + "def _private(): ...\nclass _Hidden: ...\n"),
    (rules.docstrings, MODULE, DOC + "@typing.overload\ndef f(x: int) -> int: ...\n"),
    (rules.broad_excepts, MODULE, "try:\n    f()\nexcept (ValueError, OSError):\n    pass\n"),
    (rules.broad_excepts, MODULE, "with contextlib.suppress(OSError):\n    f()\n"),
    (rules.unsafe_imports, MODULE, "from .pickle import shape\nimport json\n"),
    (rules.port_size, "src/quarterdeck/ports/narrow.py", "class P:\n" + "    def m(self): ...\n" * 15),
    (rules.port_size, "src/quarterdeck/engine/wide.py", "class P:\n" + "    def m(self): ...\n" * 16),
    (rules.sql_place, "src/quarterdeck/store/sqlite/sql/append.sql", "SELECT 1"),
]


def name_of(case: object) -> str | None:
    return getattr(case, "__name__", None)


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED, ids=name_of)
def test_a_planted_violation_is_found(rule: rules.Rule, path: str, text: str) -> None:
    findings = rule(path, text)
    assert len(findings) == 1, findings
    assert findings[0].startswith(path)


@pytest.mark.parametrize(("rule", "path", "text"), CLEAN, ids=name_of)
def test_clean_text_passes(rule: rules.Rule, path: str, text: str) -> None:
    assert rule(path, text) == []


def test_every_rule_that_is_applied_has_a_planted_violation() -> None:
    applied = {*rules.EVERY_FILE, *rules.EVERY_MODULE, *rules.PACKAGE_MODULE}
    assert applied == {rule for rule, _, _ in PLANTED}


def test_a_listed_broad_except_passes_once_and_is_counted() -> None:
    listed = frozenset({(MODULE, "the writer")})
    once = "try:\n    f()\nexcept Exception:  # the one broad except of the writer\n    pass\n"
    used: set[tuple[str, str]] = set()
    assert rules.broad_excepts(MODULE, once, listed, used) == []
    assert used == listed
    assert len(rules.broad_excepts(MODULE, once * 2, listed)) == 1
    assert len(rules.broad_excepts("src/quarterdeck/engine/other.py", once, listed)) == 1
    assert len(rules.broad_excepts(MODULE, once.replace("  # the one", "  # one"), listed)) == 1
