"""The house rules that no linter knows, as pure functions: source text in, findings out.

Each rule takes the path of a file (relative to the repository, POSIX) and its text, and returns one sentence per
violation. Because a rule sees only text, `test_rules.py` can plant a violation and show that the rule finds it;
`test_tree.py` applies them to the repository.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

Rule = Callable[[str, str], list[str]]

MODULE_LINES = 600
FUNCTION_LINES = 60
PORT_METHODS = 15

PACKAGE = "src/quarterdeck/"
SQL_ROOM = PACKAGE + "store/"
PORTS_ROOM = PACKAGE + "ports/"

VAGUE_NAMES = frozenset({"manager", "managers", "helper", "helpers", "util", "utils", "base", "common", "misc"})
UNSAFE_MODULES = frozenset({"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal"})

# Every broad `except` of the product: (path, name of the loop). One per loop, at the place that must survive whatever
# its body raises. The line itself says so too: `# the one broad except of <loop>`.
BROAD_EXCEPTS: frozenset[tuple[str, str]] = frozenset(
    {
        ("src/quarterdeck/dispatch/embedded.py", "the claim loop"),
        ("src/quarterdeck/dispatch/embedded.py", "the dispatcher"),
        ("src/quarterdeck/dispatch/relay.py", "the relay"),
        ("src/quarterdeck/engine/runner.py", "the runner"),
        ("src/quarterdeck/engine/workflows/performing.py", "steps"),
        ("src/quarterdeck/engine/workflows/strands.py", "letting go"),
        ("src/quarterdeck/engine/workflows/strands.py", "the workflow"),
        ("src/quarterdeck/policy/cedar.py", "judging"),
        ("src/quarterdeck/server/door.py", "the door"),
        ("src/quarterdeck/tools/secrets.py", "redacted findings"),
        ("src/quarterdeck/tools/secrets.py", "redaction"),
        ("src/quarterdeck/resilience/contained.py", "letting go"),
        ("src/quarterdeck/resilience/contained.py", "what is called"),
        ("src/quarterdeck/resilience/dependency.py", "the attempts"),
    }
)
BROAD_MARK = re.compile(r"# the one broad except of (\S.*?)\s*$")

# Written in two parts, so that this file passes its own rules.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
MACHINE_TRACES = (
    "pypi" + ".org",
    "files.python" + "hosted",
    "registry.npm" + "js",
    "/wo" + "rk/",
    "/opt/" + "wheels",
    "/opt/" + "pypi",
    "/ro" + "ot/",
)

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def module_size(path: str, text: str) -> list[str]:
    """A module past the limit holds a second concept."""
    lines = text.count("\n") + (not text.endswith("\n") and text != "")
    return [f"{path}: {lines} lines, at most {MODULE_LINES}"] if lines > MODULE_LINES else []


def function_size(path: str, text: str) -> list[str]:
    """A function is read without scrolling; from `def` to its last line, docstring included."""
    findings = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                findings.append(f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}")
    return findings


def module_name(path: str, text: str) -> list[str]:
    """A name that fits everything says nothing; holds for folders too."""
    parts = PurePosixPath(path).with_suffix("").parts
    return [
        f"{path}: {part!r} names no concept" for part in parts if not VAGUE_NAMES.isdisjoint(re.split(r"[_\-.]", part.lower()))
    ]


def unfinished(path: str, text: str) -> list[str]:
    """What is not done is an issue, not a comment."""
    return [
        f"{path}:{number}: {found[0]}" for number, line in enumerate(text.splitlines(), 1) if (found := UNFINISHED.search(line))
    ]


def machine_traces(path: str, text: str) -> list[str]:
    """No package registry and no path of somebody's machine in the repository; the contents must work anywhere."""
    return [
        f"{path}:{number}: mentions {trace!r}"
        for number, line in enumerate(text.splitlines(), 1)
        for trace in MACHINE_TRACES
        if trace in line
    ]


def docstrings(path: str, text: str) -> list[str]:
    """Every public module, class and function of the package says what it promises; a room's `__init__` above all."""
    tree = ast.parse(text)
    name = PurePosixPath(path).stem
    if name.startswith("_") and name not in {"__init__", "__main__"}:
        return []
    findings = [] if _documented(tree) else [f"{path}: the module has no docstring"]
    findings += [
        f"{path}:{node.lineno}: {node.name} has no docstring"
        for node in _top_level(tree.body)
        if not node.name.startswith("_") and not _documented(node) and not _is_overload(node)
    ]
    return findings


def broad_excepts(
    path: str, text: str, allowed: frozenset[tuple[str, str]] = BROAD_EXCEPTS, used: set[tuple[str, str]] | None = None
) -> list[str]:
    """`except:`, `except Exception`, `except BaseException` and their `suppress` twins: one per named loop.

    ``used`` collects the entries of the allow-list that were needed, so that a stale entry can be found.
    """
    findings = []
    seen: set[str] = set()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler | ast.Call) or not _is_broad(node) or _passes_on(node):
            continue
        mark = BROAD_MARK.search(lines[node.lineno - 1])
        loop = mark[1] if mark else None
        if loop is None:
            findings.append(f"{path}:{node.lineno}: a broad except without '# the one broad except of <loop>'")
        elif (path, loop) not in allowed:
            findings.append(f"{path}:{node.lineno}: the broad except of {loop!r} is not in the allow-list")
        elif loop in seen:
            findings.append(f"{path}:{node.lineno}: a second broad except of {loop!r}")
        else:
            seen.add(loop)
            if used is not None:
                used.add((path, loop))
    return findings


def unsafe_imports(path: str, text: str) -> list[str]:
    """Nothing is pickled: what is stored outlives the code that wrote it, and loading it must never run code."""
    findings = []
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif not node.level:
            names = [node.module or ""]
        findings += [f"{path}:{node.lineno}: imports {name}" for name in names if name.partition(".")[0] in UNSAFE_MODULES]
    return findings


def port_size(path: str, text: str) -> list[str]:
    """A port with many methods is two ports."""
    if not path.startswith(PORTS_ROOM):
        return []
    findings = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) for item in node.body)
            if methods > PORT_METHODS:
                findings.append(f"{path}:{node.lineno}: {node.name} has {methods} methods, at most {PORT_METHODS}")
    return findings


def sql_place(path: str, text: str) -> list[str]:
    """The product's SQL lives in the store's rooms only; an example may have a database of its own."""
    outside = path.endswith(".sql") and not path.startswith((SQL_ROOM, "examples/"))
    return [f"{path}: .sql files live under {SQL_ROOM}"] if outside else []


def _documented(node: ast.Module | _Definition) -> bool:
    return bool((ast.get_docstring(node) or "").strip())


def _top_level(body: list[ast.stmt]) -> Iterator[_Definition]:
    """The definitions of a module, also those under `if` and `try`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        elif isinstance(node, ast.If):
            yield from _top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _top_level([*node.body, *node.orelse, *node.finalbody])
            for handler in node.handlers:
                yield from _top_level(handler.body)


def _is_overload(node: _Definition) -> bool:
    return any(_last_name(decorator) == "overload" for decorator in node.decorator_list)


def _is_broad(node: ast.ExceptHandler | ast.Call) -> bool:
    if isinstance(node, ast.ExceptHandler):
        caught: list[ast.expr | None] = [node.type]
    elif isinstance(node, ast.Call) and _last_name(node.func) == "suppress":
        caught = list(node.args)
    else:
        return False
    flat = [item for kind in caught for item in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
    return any(kind is None or _last_name(kind) in {"Exception", "BaseException"} for kind in flat)


def _passes_on(node: ast.ExceptHandler | ast.Call) -> bool:
    """A handler that ends in a bare `raise` cleans up and swallows nothing."""
    last = node.body[-1] if isinstance(node, ast.ExceptHandler) else None
    return isinstance(last, ast.Raise) and last.exc is None


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


EVERY_FILE: tuple[Rule, ...] = (module_name, unfinished, machine_traces, sql_place)
EVERY_MODULE: tuple[Rule, ...] = (module_size, function_size, unsafe_imports)
PACKAGE_MODULE: tuple[Rule, ...] = (docstrings, broad_excepts, port_size)
