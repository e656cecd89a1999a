"""A workflow made ready to run: its function, what its payload becomes, and the hash of its code."""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field

import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.engine.programs import Program
from quarterdeck.engine.workflows.context import Context
from quarterdeck.engine.workflows.play import Play

Function = Callable[..., Coroutine[object, object, object]]
"""An async function of a :class:`Context` and, by name, of what its payload holds."""


@dataclass(frozen=True, slots=True)
class WorkflowProgram(Program):
    """What is the same for every run of a workflow. ``names`` are tools and workflows by the functions that they were made of;
    ``compensations`` the tools that undo, by the tools that they undo.
    ``raises``: an interrupt ends what the workflow waits for.
    """

    function: Function = field(kw_only=True)
    names: Mapping[object, str] = field(kw_only=True)
    compensations: Mapping[str, str] = field(kw_only=True)
    raises: bool = field(kw_only=True, default=False)

    def body(self, play: Play, payload: bytes | None) -> Coroutine[object, object, object]:
        """The coroutine of one execution."""
        return _begin(self.function, Context(play), payload)


def source_hash(function: Callable[..., object]) -> str:
    """A content hash of a function's code: of its source where there is one, else of its bytecode."""
    try:
        text = inspect.getsource(function).encode()
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        text = repr((code.co_code, code.co_consts, code.co_names) if code is not None else function).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def require_workflow(function: Callable[..., object]) -> None:
    """Raises :class:`UsageError` (``workflow.function``) for what cannot be a workflow."""
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not inspect.iscoroutinefunction(function) or not parameters or parameters[0].kind not in positional:
        name = getattr(function, "__name__", function)
        raise UsageError("workflow.function", f"{name} cannot be a workflow; write `async def {name}(ctx: Context, …)`")


async def _begin(function: Function, context: Context, payload: bytes | None) -> object:
    positional, named = _arguments(function, msgspec.json.decode(payload) if payload is not None else None)
    return await function(context, *positional, **named)


def _arguments(function: Function, payload: object) -> tuple[list[object], dict[str, object]]:
    """What a payload becomes: an object whose keys are the parameters' names is spread over them, anything else is the one parameter."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    try:
        hints = typing.get_type_hints(function)
    except NameError:
        hints = {}
    names = {parameter.name for parameter in parameters}
    needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    try:
        if isinstance(payload, dict) and payload.keys() <= names and needed <= payload.keys():
            return [], {str(name): _typed(value, hints.get(str(name))) for name, value in payload.items()}
        if payload is None and not needed:
            return [], {}
        if len(parameters) == 1:
            return [_typed(payload, hints.get(parameters[0].name))], {}
    except msgspec.ValidationError as error:
        raise UsageError("workflow.payload", f"the payload does not fit {function.__name__}: {error}") from None
    wanted = ", ".join(sorted(names)) or "nothing"
    raise UsageError("workflow.payload", f"{function.__name__} takes {wanted}; send an object with these keys")


def _typed(value: object, hint: object) -> object:
    return value if hint is None or hint is object else msgspec.convert(value, hint)
