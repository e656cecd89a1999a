"""The prompt of a very small model. Pure and deterministic.

A model of a hundred million parameters does not follow instructions; it continues patterns. So its prompt is a pattern and nothing
else: a few lines ``what was said -> {"tool":…,"arguments":…}``, then the line that it has to finish. Which examples stand there
matters more than anything: the four that share most words with what was said, the nearest last (choosing in-context examples by
similarity: Liu et al. 2021, "What Makes Good In-Context Examples for GPT-3?", https://arxiv.org/abs/2101.06804).

Without examples, what the tools are for is all there is to go by, and the choice is close to chance.

What tools have answered is appended to what was said, as ``[lookup_order: status shipped]``. An example may show such a
continuation and so teach a second step; where no example does, the model is not asked which tool comes next (it would call the
same one for ever) but only to say the result in a sentence.

Every part is cut to a number of bytes, so a prompt fits the context whatever is in it: a token is at least a byte.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.models.structured import reply_name
from quarterdeck.ports.model import Message, ModelRequest, ToolDeclaration

EXAMPLES_SHOWN = 4
SAID_BYTES = 900
RESULT_BYTES = 300
NAME_BYTES = 64
RESULTS_SHOWN = 3
EXAMPLE_BYTES = 400
TOOLS_BYTES = 600
SYSTEM_BYTES = 600

PROMPT_BYTES = 4_400
"""No prompt is longer, chat template included: the parts above, with what stands between them."""

_WORD = re.compile(r"[^\W\d_]+")
_LESSON = re.compile(r"^(?P<said>.+?) -> (?P<proposal>\{.*\})\s*$", re.MULTILINE)


class Example(msgspec.Struct, frozen=True):
    """One line of the pattern: what was said, the tool that it teaches, and the proposal as compact JSON."""

    said: str
    tool: str
    proposal: str


class Round(msgspec.Struct, frozen=True):
    """What happened since the user last spoke: the words, and each answered call as (tool, result)."""

    said: str
    results: tuple[tuple[str, str], ...]

    @property
    def line(self) -> str:
        """The round as the left side of a pattern's line."""
        return self.said + "".join([f" [{tool}: {result}]" for tool, result in self.results])


class Prompt(msgspec.Struct, frozen=True):
    """What the engine is given: raw ``text`` to continue under the proposals of ``tools``, or ``chat`` to answer in plain words."""

    text: str
    chat: tuple[tuple[str, str], ...]
    tools: tuple[ToolDeclaration, ...]

    @property
    def input_bound(self) -> int:
        """No more tokens than this: the bytes, and the template's markers."""
        return len(self.text.encode()) + sum([len(content.encode()) + 16 for _, content in self.chat]) + 64


def examples_of(given: Sequence[tuple[str, str]]) -> tuple[Example, ...]:
    """Check examples (user text, JSON proposal). Raises ``model.example_invalid``.

    >>> examples_of([("Where is A-1?", '{"tool": "lookup", "arguments": {"id": "A-1"}}')])[0].proposal
    '{"tool":"lookup","arguments":{"id":"A-1"}}'
    """
    found = []
    for said, text in given:
        example = _example(said, text)
        if example is None:
            raise UsageError("model.example_invalid", f"no proposal {{'tool': …, 'arguments': {{…}}}}: {text[:80]!r}")
        found.append(example)
    return tuple(found)


def examples_in(system: str) -> tuple[Example, ...]:
    """The lines ``text -> {"tool":…,"arguments":…}`` of a system prompt, as examples."""
    found = [_example(match["said"], match["proposal"]) for match in _LESSON.finditer(system)]
    return tuple([example for example in found if example is not None])


def prompt_of(request: ModelRequest, examples: Sequence[Example]) -> Prompt:
    """The prompt for this request; at most :data:`PROMPT_BYTES`."""
    now = current_round(request.messages)
    lessons = (*examples, *(e for m in request.messages if m.role == "system" for e in examples_in(m.content)))
    used = {tool for tool, _ in now.results}
    if not request.tools:
        system = _plain(" ".join([_LESSON.sub("", m.content) for m in request.messages if m.role == "system"]))
        return Prompt("", (("system", _cut(system, SYSTEM_BYTES)), *_telling(now)[-1:]), ())
    if used and not any(f"[{tool}: " in lesson.said for lesson in lessons for tool in used):
        return Prompt("", _telling(now), request.tools)
    tools = tuple([tool for tool in request.tools if tool.name not in used])
    names = {tool.name for tool in tools} | {reply_name(tools)}
    shown = nearest(now.line, [lesson for lesson in lessons if lesson.tool in names], EXAMPLES_SHOWN)
    taught = {lesson.tool for lesson in lessons}
    listing = "".join([f"{tool.name}: {_plain(tool.description)}\n" for tool in tools if tool.name not in taught])
    pattern = "".join([f"{_cut(e.said, EXAMPLE_BYTES // 2)} -> {e.proposal}\n" for e in shown])
    head = _cut_lines(listing, TOOLS_BYTES)
    return Prompt(f"{head}\n{pattern}{now.line} ->" if head else f"{pattern}{now.line} ->", (), tools)


def nearest(line: str, examples: Sequence[Example], count: int) -> list[Example]:
    """The ``count`` examples that share most words with ``line``, the nearest last; ties in the given order.

    >>> pair = examples_of([("Refund it", '{"tool":"a","arguments":{}}'), ("Where is it?", '{"tool":"b","arguments":{}}')])
    >>> [example.tool for example in nearest("where is my parcel", pair, 1)]
    ['b']
    """
    words = set(_WORD.findall(line.lower()))
    ranked = sorted(range(len(examples)), key=lambda at: (_likeness(words, examples[at].said), -at))
    return [examples[at] for at in ranked[-count:]] if count else []


def current_round(messages: Sequence[Message]) -> Round:
    """What was said last by the user, and what the tools have answered since.

    >>> current_round([Message("user", '{"ticket": "Where is A-1?", "from": "ada"}')]).line
    'ticket Where is A-1?, from ada'
    """
    start = max([at for at, message in enumerate(messages) if message.role == "user"], default=0)
    said = messages[start].content if messages and messages[start].role == "user" else ""
    asked = {call.call_id: call.tool for message in messages[start:] for call in message.calls}
    results = [
        (_cut(asked.get(message.call_id, "tool"), NAME_BYTES), _cut(_plain(message.content), RESULT_BYTES))
        for message in messages[start:]
        if message.role == "tool"
    ]
    return Round(_cut(_plain(said), SAID_BYTES), tuple(results[-RESULTS_SHOWN:]))


def _telling(now: Round) -> tuple[tuple[str, str], ...]:
    if not now.results:
        return (("user", now.said),)
    results = "\n".join([f"Result: {tool} {result}" for tool, result in now.results])
    return (
        ("system", "Rewrite the result as one short sentence for the customer."),
        ("user", f"Request: {now.said}\n{results}"),
    )


def _example(said: str, text: str) -> Example | None:
    try:
        proposal = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    match proposal:
        case {"tool": str(tool), "arguments": dict()}:
            encoded = msgspec.json.encode(proposal).decode()
            return Example(_plain(said), tool, encoded) if len(encoded.encode()) <= EXAMPLE_BYTES // 2 else None
        case _:
            return None


def _likeness(words: set[str], said: str) -> float:
    others = set(_WORD.findall(said.lower()))
    return len(words & others) / (1 + math.sqrt(len(words) * len(others)))


def _plain(text: str) -> str:
    """One line of plain words: JSON objects are spelt out, white space is folded, and no marker of the chat template is left."""
    if text.lstrip().startswith("{"):
        with suppress(msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            text = _spelt(msgspec.json.decode(text))
    return " ".join(text.replace("<|", "< |").split())


def _spelt(value: object) -> str:
    match value:
        case {**fields} if len(fields) == 1 and "denied" not in fields:
            return _spelt(next(iter(fields.values())))
        case {**fields}:
            return ", ".join([f"{name} {_spelt(inner)}" for name, inner in fields.items()])
        case list():
            return ", ".join([_spelt(inner) for inner in value])
        case _:
            return str(value)


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def _cut_lines(text: str, limit_bytes: int) -> str:
    cut = _cut(text, limit_bytes)
    return cut if len(cut) == len(text) else cut[: cut.rfind("\n") + 1]
