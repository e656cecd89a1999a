"""Reading the body of a workflow for what gives something else each time: clocks, randomness, the world outside.

Only calls in the workflow's own body are looked at: what runs inside a step or a tool may do all of this. Names are followed through the
imports that the function sees, so that ``from random import choice as pick`` is found, and a parameter called ``time`` is not.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType

IMPURE_MODULES = frozenset(
    {"time", "random", "secrets", "uuid", "requests", "httpx", "httpx2", "aiohttp", "urllib", "socket", "subprocess", "threading"}
)
"""Modules of which every call gives something else each time, or reaches outside."""
IMPURE_CALLS = frozenset(
    {
        "asyncio.sleep",
        "asyncio.create_task",
        "asyncio.gather",
        "asyncio.wait",
        "asyncio.wait_for",
        "asyncio.to_thread",
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
        "os.urandom",
        "os.getenv",
        "os.environ.get",
        "builtins.open",
        "builtins.input",
    }
)
"""Single calls of the same kind."""


def impure(function: Callable[..., object]) -> list[tuple[str, int]]:
    """The calls in a function's body that break a replay, with their lines; nothing where there is no source."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return []
    body = next((node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)), None)
    if body is None:
        return []
    seen = _Names(function, body)
    return [(name, first + node.lineno - 1) for node in _own_calls(body) if (name := seen.impure(node.func)) is not None]


def _own_calls(body: ast.AsyncFunctionDef) -> Iterator[ast.Call]:
    """Calls in the body, but not in functions that are defined in it: those run where they are called, often inside a step."""
    pending: list[ast.AST] = list(body.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield node
        pending.extend(ast.iter_child_nodes(node))


class _Names:
    """What the names in a function mean, as far as its imports say."""

    def __init__(self, function: Callable[..., object], body: ast.AsyncFunctionDef) -> None:
        self._globals: dict[str, object] = function.__globals__ if isinstance(function, FunctionType) else {}
        parameters = body.args
        self._own = {each.arg for each in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)}
        self._imported: dict[str, str] = {}
        for node in ast.walk(body):
            if isinstance(node, ast.Import):
                for name in node.names:
                    bound = name.asname or name.name.partition(".")[0]
                    self._imported[bound] = name.name if name.asname else bound
            elif isinstance(node, ast.ImportFrom):
                self._imported |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}

    def impure(self, called: ast.expr) -> str | None:
        """The full name of what is called, if it is one of those."""
        parts: list[str] = []
        while isinstance(called, ast.Attribute):
            parts.insert(0, called.attr)
            called = called.value
        if not isinstance(called, ast.Name) or called.id in self._own:
            return None
        name = ".".join([self._meaning(called.id), *parts])
        return name if name.partition(".")[0] in IMPURE_MODULES or name in IMPURE_CALLS else None

    def _meaning(self, name: str) -> str:
        if name in self._imported:
            return self._imported[name]
        value = self._globals.get(name)
        if isinstance(value, ModuleType):
            return value.__name__
        if value is None:
            return f"builtins.{name}"
        module, qualified = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if not (module and qualified):
            return name
        return f"{'asyncio' if module.startswith('asyncio.') else module}.{qualified}"
