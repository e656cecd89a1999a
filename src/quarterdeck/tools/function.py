"""A typed Python function as a tool.

Parameters become the fields of a strict schema (unknown arguments are refused, nothing is coerced); a parameter annotated with
:class:`~quarterdeck.ports.tools.ToolContext` receives the context instead. Dataclasses, enums, ``Literal``, ``Annotated`` constraints
(:class:`msgspec.Meta`), ``TypedDict`` and nested structs all work.

>>> async def greet(name: str, times: int = 1) -> str:
...     "Say hello."
...     return f"hello {name} " * times
>>> tool = FunctionTool(greet, effect=EffectClass.READ)
>>> tool.fit(b'{"name":"Ada"}'), tool.fit(b'{"nam":"Ada"}')
('', 'Object contains unknown field `nam`')
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import string
import typing
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from quarterdeck.core.canonical import strictly
from quarterdeck.core.contract import checked_key, checked_name
from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Confidentiality, Integrity
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus
from quarterdeck.ports.tools import Finding, ToolContext, ToolFailure

MAX_RESULT = 1_048_576
"""The longest result of a tool, in bytes of JSON; a longer one makes the call fail with ``tool.result_too_large``."""

FOR_EVER_S = 10 * 365 * 86_400
"""How long a transactional tool may be performed again: without its receipt it has never done anything."""
THREADS = 32
"""Worker threads of one plain tool: calls of a tool that hangs never take those of another."""

_encoder = msgspec.json.Encoder(order="deterministic")


class FunctionTool:
    """A tool made of a function, plain or ``async``; plain ones run in a worker thread so that they cannot block the loop."""

    def __init__(
        self, function: Callable[..., object], *, effect: EffectClass, name: str | None = None,
        idempotent: bool = False, idempotent_for_s: int = 86_400, reconcile: Callable[..., object] | None = None,
        compensate: Callable[..., object] | None = None, cancel: Callable[..., object] | None = None,
        timeout_s: float = 30.0, stale_s: float = 0.0, permissions: tuple[str, ...] = (), sandbox: str = "in_process",
        cost_microusd: int = 0, evidence: tuple[str, ...] = (), integrity: Integrity = Integrity.TRUSTED,
        confidentiality: Confidentiality = Confidentiality.PUBLIC, trusted_fields: tuple[str, ...] = (),
        sinks: tuple[str, ...] | None = None, touches: Confidentiality | None = None, secrets: tuple[str, ...] = (),
        transactional: bool = False, exclusive: str | Callable[..., str] | None = None,
        heartbeat_timeout_s: float | None = None,
    ) -> None:  # fmt: skip
        self._exclusive = exclusive
        if stale_s and effect is not EffectClass.READ:
            raise UsageError(
                "tool.stale", f"{name or function.__name__} is no read: only a read can be answered with an old answer"
            )
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._threads: ThreadPoolExecutor | None = None
        self._working: dict[str, set[Future[object]]] = {}
        self._reconcile = reconcile
        self.compensate = compensate
        self._struct, self._context_name = _arguments_of(function)
        self._decoder: msgspec.json.Decoder[msgspec.Struct] = msgspec.json.Decoder(self._struct, strict=True)
        self._fields = self._struct.__struct_fields__
        self.spec = ToolSpec(
            name=checked_name("tool", name or function.__name__),
            description=inspect.getdoc(function) or "",
            effect=effect,
            input_schema=_schema_of(self._struct),
            idempotent=idempotent or transactional,
            idempotent_for_s=FOR_EVER_S if transactional else idempotent_for_s,
            reconcilable=reconcile is not None,
            compensable=compensate is not None,
            cancellable=cancel is not None,
            timeout_s=timeout_s,
            stale_s=stale_s,
            permissions=permissions,
            sandbox=sandbox,
            cost_microusd=cost_microusd,
            evidence=evidence,
            integrity=integrity,
            confidentiality=confidentiality,
            trusted_fields=trusted_fields,
            sinks=sinks,
            touches=touches,
            secrets=secrets,
            transactional=transactional,
            exclusive=exclusive is not None,
            heartbeat_timeout_s=heartbeat_timeout_s,
        )
        if unknown := sorted(set(sinks or ()) - set(self._fields)):
            said = f"{self.spec.name} has no arguments {', '.join(unknown)}; sinks are names of its arguments"
            raise UsageError("tool.sinks", said)
        self._require_possible()

    def _require_possible(self) -> None:
        spec, exclusive = self.spec, self._exclusive
        if isinstance(exclusive, str) and (unknown := _named(exclusive) - set(self._fields)):
            raise UsageError(
                "tool.exclusive", f"{spec.name}: {exclusive!r} names {sorted(unknown)}, which are no parameters of it"
            )
        if spec.transactional and (spec.reconcilable or self._context_name is None):
            said = "takes a ToolContext, through which it does all that it does, and needs no reconcile function"
            raise UsageError("tool.transactional", f"{spec.name}: a transactional tool {said}")

    def exclusive_key(self, arguments: bytes) -> str:
        """The key of what a call with these arguments works on; empty if the tool has none."""
        if self._exclusive is None:
            return ""
        decoded = self._decoder.decode(arguments)
        values = {field: getattr(decoded, field) for field in self._fields}
        key = self._exclusive.format(**values) if isinstance(self._exclusive, str) else self._exclusive(values)
        return checked_key(f"the exclusive key of {self.spec.name}", key)

    def fit(self, arguments: bytes) -> str:
        """Why these arguments do not fit, or an empty string."""
        try:
            self._decoder.decode(arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return str(error)
        return ""

    async def perform(self, arguments: bytes, context: ToolContext) -> bytes:
        """Call the function once; its result as JSON."""
        values = self._values(arguments, context)
        if self._is_async:
            result = await typing.cast("Awaitable[object]", self._function(**values))
        else:
            result = await self._in_thread(values, context.idempotency_key)
        try:
            encoded = strictly(_encoder, result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ToolFailure(
                "tool.result_unreadable", f"{self.spec.name} returned what is no JSON: {error}", done=True
            ) from None
        if len(encoded) > MAX_RESULT:
            message = f"{self.spec.name} returned more than {MAX_RESULT} bytes; return less"
            raise ToolFailure("tool.result_too_large", message, done=True)
        return encoded

    async def reconcile(self, arguments: bytes, context: ToolContext) -> Finding:
        """Ask the tool's reconcile function; ``None`` from it means that the effect did not happen.

        It is called with the tool's own arguments, those of them that it names, and the context. It returns a
        :class:`Finding`, ``None`` (it did not happen), or the result (it did). A thread cannot be stopped: where one still works on
        this very effect, it is waited for, as long as the tool's time-out, and not known to have ended it stays unknown.
        """
        if self._reconcile is None or not await self._has_ended(context.idempotency_key):
            return Finding(ReceiptStatus.UNKNOWN)
        wanted = inspect.signature(self._reconcile).parameters
        values = {
            **self._values(arguments, context),
            "ctx": context,
            "context": context,
            "idempotency_key": context.idempotency_key,
        }
        chosen = {name: value for name, value in values.items() if name in wanted}
        found = self._reconcile(**chosen)
        if inspect.isawaitable(found):
            found = await found
        if isinstance(found, Finding):
            return found
        return Finding(ReceiptStatus.FAILED) if found is None else Finding(ReceiptStatus.SUCCEEDED, found)

    async def _in_thread(self, values: dict[str, object], key: str) -> object:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"quarterdeck-{self.spec.name}")
        work = functools.partial(contextvars.copy_context().run, functools.partial(_returned, self._function, values))
        working = self._threads.submit(work)
        self._working.setdefault(key, set()).add(working)
        working.add_done_callback(functools.partial(self._ended, key))
        return await asyncio.wrap_future(working)

    def _ended(self, key: str, working: Future[object]) -> None:
        still = self._working.get(key, set())
        still.discard(working)
        if not still:
            self._working.pop(key, None)

    async def _has_ended(self, key: str) -> bool:
        """Whether no thread works on the effect of this key any more; waits a while for those that do."""
        working = [asyncio.wrap_future(one) for one in tuple(self._working.get(key, ()))]
        if not working:
            return True
        for one in working:
            one.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # whatever it was: the tool is asked now
        _, still = await asyncio.wait(working, timeout=self.spec.timeout_s)
        return not still

    def _values(self, arguments: bytes, context: ToolContext) -> dict[str, object]:
        decoded = self._decoder.decode(arguments)
        values = {field: getattr(decoded, field) for field in self._fields}
        if self._context_name is not None:
            values[self._context_name] = context
        return values


def _returned(function: Callable[..., object], values: dict[str, object]) -> object:
    try:
        return function(**values)
    except (StopIteration, GeneratorExit) as stray:  # no future carries them to whoever waits
        raise RuntimeError(f"the tool raised {type(stray).__name__}") from stray


def _schema_of(struct: type[msgspec.Struct]) -> bytes:
    """The JSON Schema of a function's parameters, encoded."""
    schema, components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    body = components.pop(struct.__name__, schema[0])
    body.pop("title", None)
    if components:
        body["$defs"] = components
    return _encoder.encode(body)


def _named(template: str) -> set[str]:
    """The parameters that a template names."""
    return {name.partition(".")[0].partition("[")[0] for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def _arguments_of(function: Callable[..., object]) -> tuple[type[msgspec.Struct], str | None]:
    """The struct of a function's parameters, and the name of the one that takes the context."""
    name = getattr(function, "__name__", "tool")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UsageError("tool.annotations", f"{name}: {error}; annotate parameters with names that its module defines") from None
    fields: list[tuple[str, object] | tuple[str, object, object]] = []
    context_name = None
    for parameter in inspect.signature(function).parameters.values():
        if hints.get(parameter.name) is ToolContext:
            context_name = parameter.name
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError("tool.parameters", f"{name}: {parameter.name} must be an ordinary named parameter")
        if parameter.name not in hints:
            raise UsageError("tool.annotations", f"{name}: annotate the parameter {parameter.name!r} with its type")
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hints[parameter.name]))
        else:
            fields.append((parameter.name, hints[parameter.name], parameter.default))
    try:
        struct = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True, gc=False)
        msgspec.json.schema(struct)
    except TypeError as error:
        raise UsageError("tool.annotations", f"{name}: {error}; use types that JSON can carry") from None
    return struct, context_name
