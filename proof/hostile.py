"""B02 and B03 inside a run: what a model may write, and what may stand in a store, at its worst.

Whatever a model writes ends as a recorded denial that the model is told, or as a failure with a code of its own; nothing is performed,
nothing is lost, the journal verifies. A journal that somebody changed is quarantined with a clear error, and other runs go on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import msgspec

from proof.answers import Case
from proof.stage import Provider, Remembering, ended, events_of, expect, on_stage, rested, sound
from quarterdeck import Budget, Quarterdeck, ToolContext
from quarterdeck.core import events as ev
from quarterdeck.core.errors import Corrupt, QuarterdeckError
from quarterdeck.core.vocabulary import ProposalKind, Ruling
from quarterdeck.ports.model import ModelReply, ModelRequest, ToolCall, Usage
from quarterdeck.ports.store import StoredEvent
from quarterdeck.store.chain import chained, payload_digest, verify_run
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.scripted import ScriptedModel

ARGUMENTS: dict[str, tuple[str, str]] = {
    "deep": ("[" * 100_000, "json.too_deep"),
    "deep, closed": ('{"tags":' + "[" * 40 + "]" * 40 + "}", "json.too_deep"),
    "digits": ('{"n":' + "9" * 5_000 + "}", "json.number"),
    "integer beyond 2^53": ('{"n":9007199254740993}', "json.number"),
    "huge exponent": ('{"x":1e999}', "json.number"),
    "Infinity": ('{"x":Infinity}', "json.number"),
    "-Infinity": ('{"x":-Infinity}', "json.number"),
    "NaN": ('{"x":NaN}', "json.number"),
    "duplicate keys": ('{"n":1,"n":2}', "json.duplicate_key"),
    "duplicate keys, one escaped": ('{"n":1,"\\u006e":2}', "json.duplicate_key"),
    "lone surrogate, escaped": ('{"text":"\\ud800"}', "json.encoding"),
    "lone surrogate in a key": ('{"\\udfff":1}', "json.encoding"),
    "NUL, escaped": ('{"text":"\\u0000"}', "json.nul"),
    "NUL, raw": ('{"text":"\x00"}', "json.invalid"),
    "too long": ('{"text":"' + "x" * 300_000 + '"}', "json.too_large"),
    "too long in bytes": ('{"text":"' + "€" * 100_000 + '"}', "json.too_large"),
    "nothing": ("", "json.invalid"),
    "no JSON": ("please act now", "json.invalid"),
    "cut off": ('{"n":1', "json.invalid"),
    "two documents": ("{} {}", "json.invalid"),
    "byte order mark": ("\ufeff{}", "json.invalid"),
    "comment": ("{/* yes */}", "json.invalid"),
    "single quotes": ("{'n':1}", "json.invalid"),
    "trailing comma": ('{"n":1,}', "json.invalid"),
    "null": ("null", "schema.invalid"),
    "list": ("[]", "schema.invalid"),
    "text": ('"n"', "schema.invalid"),
    "number": ("1", "schema.invalid"),
    "wrong type": ('{"n":"1"}', "schema.invalid"),
    "fraction": ('{"n":1.5}', "schema.invalid"),
    "truth for a number": ('{"n":true}', "schema.invalid"),
    "unknown field": ('{"n":1,"really":true}', "schema.invalid"),
    "the context": ('{"ctx":{"tenant":"other"}}', "schema.invalid"),
    "wrong type within": ('{"tags":["a",1]}', "schema.invalid"),
}
"""Arguments as a model may write them, with the code that denies each."""
TOOLS: dict[str, str] = {
    "unknown": "nope",
    "empty": "",
    "longer than a name": "x" * 10_000,
    "line breaks": "act\nquarterdeck/1",
    "NUL": "act\x00",
    "homoglyph": "\u0430ct",
    "policy syntax": 'act"); permit(principal, action, resource',
}
"""Names of tools that do not exist."""


class Saying(ScriptedModel):
    """A model that sends one message as it is, and then, if it is asked again, a plain reply."""

    def __init__(self, text: str, calls: tuple[ToolCall, ...] = (), *, always: bool = False) -> None:
        super().__init__([])
        self.reply = ModelReply(text, calls, Usage(10, 10), "calls" if calls else "stop", "hostile")
        self._always = always
        self.asked = 0

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        self.asked += 1
        return self.reply if self._always or not request.turn else ModelReply("reported", (), Usage(10, 10), "stop", "hostile")


def deck_of(model: ScriptedModel, provider: Provider) -> Quarterdeck:
    """An agent with one tool that must never be performed here."""
    deck = Quarterdeck("hostile")

    @deck.tool(effect="external")
    async def act(ctx: ToolContext, n: int = 0, x: float = 0.0, text: str = "", tags: tuple[str, ...] = ()) -> str:
        provider.blindly(ctx.idempotency_key)
        return "done"

    deck.model("m", model)
    deck.agent("a", model="m", tools=[act], budget=Budget(turns=10, tools=5))
    return deck


async def denied(tool: str, arguments: str, code: str) -> list[str]:
    """One call that must be denied with this code; the model is told, and goes on."""
    found: list[str] = []
    provider, model = Provider(), Remembering([[(tool, arguments)], "reported"])
    async with on_stage(deck_of(model, provider)) as runtime:
        handle = await runtime.submit("a")
        result = await ended(handle)
        expect(found, "the run", (result.status, result.code), ("succeeded", "completed"))
        events = events_of(runtime, handle.id)
        rulings = [
            (event.ruling, event.reasons)
            for event in events
            if isinstance(event, ev.GateDecided) and event.proposal is ProposalKind.TOOL
        ]
        expect(found, "the decision", rulings, [(Ruling.DENY, (code,))])
        expect(found, "performed", provider.done, [])
        fits = len(arguments) < 10_000  # a turn that is larger than the model's context is left out of it, answer and all
        if fits and code not in model.answers.get("c0-0", ""):
            found.append(f"the model is not told, but shown {model.answers}")
        found += sound(runtime, handle.id)
    return found


async def message(text: str, calls: tuple[ToolCall, ...], status: str, code: str) -> list[str]:
    """One whole message that must end the run in this way, and perform nothing."""
    found: list[str] = []
    provider, model = Provider(), Saying(text, calls, always=True)
    async with on_stage(deck_of(model, provider)) as runtime:
        handle = await runtime.submit("a")
        result = await rested(handle)
        expect(found, "the run", (result.status, result.code), (status, code))
        expect(found, "performed", provider.done, [])
        if model.asked > 10:
            found.append(f"the model was asked {model.asked} times")
        found += sound(runtime, handle.id)
    return found


async def refused_at_the_door(payload: object) -> list[str]:
    """A caller's payload that cannot be kept: an error with a code, and no run."""
    found: list[str] = []
    async with on_stage(deck_of(ScriptedModel(["reported"]), Provider())) as runtime:
        try:
            await runtime.submit("a", payload)
            found.append("it was admitted")
        except QuarterdeckError as error:
            if not error.code.startswith("json."):
                found.append(f"the code is {error.code}")
        expect(found, "runs", len(runtime.runs()), 0)
    return found


def _calls(count: int, tool: str = "nope", arguments: str = "{}", call_id: str = "c{}") -> tuple[ToolCall, ...]:
    return tuple([ToolCall(call_id.format(number), tool, arguments) for number in range(count)])


def _nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


MESSAGES: dict[str, tuple[str, tuple[ToolCall, ...], str, str]] = {
    "1000 calls": ("", _calls(1_000), "failed", "model.unbounded"),
    "65 calls": ("", _calls(65), "failed", "model.unbounded"),
    "64 calls of nothing, for ever": ("", _calls(64, tool=""), "failed", "budget.turns"),
    "calls with one id": ("", _calls(3, call_id="same"), "failed", "budget.turns"),
    "calls without an id": ("", _calls(3, call_id=""), "failed", "budget.turns"),
    "huge text": ("x" * 1_100_000, (), "failed", "model.unbounded"),
    "huge arguments": ("", _calls(2, arguments="x" * 600_000), "failed", "model.unbounded"),
    "huge name": ("", _calls(1, tool="x" * 9_000_000), "failed", "model.unbounded"),
    "huge id": ("", _calls(1, call_id="x" * 9_000_000), "failed", "model.unbounded"),
    "NULs in calls": ("", _calls(4, arguments="\x00" * 250_000), "failed", "budget.turns"),
    "lone surrogate in the text": ("a\ud800", (), "failed", "model.garbled"),
    "lone surrogate in a name": ("", _calls(1, tool="\udc00"), "failed", "model.garbled"),
    "lone surrogate in an id": ("", _calls(1, call_id="\udc00"), "failed", "model.garbled"),
    "lone surrogate in arguments": ("", _calls(1, arguments='{"text":"\ud800"}'), "failed", "model.garbled"),
    "a reply of NULs": ("\x00" * 1_000_000, (), "succeeded", "completed"),
    "nothing at all": ("", (), "succeeded", "completed"),
}
"""Whole messages, with how a run ends whose model sends nothing else."""
PAYLOADS: dict[str, object] = {
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\ud800": 1},
    "NaN": float("nan"),
    "infinity": {"x": float("inf")},
    "deep": _nested(60),
    "very deep": _nested(20_000),
    "NUL": "a\x00b",
    "too large": "x" * 300_000,
    "a large integer": 2**60,
    "no JSON": object(),
}
"""Payloads that a caller must not be able to submit."""

Tamper = Callable[[list[StoredEvent], bytes], list[StoredEvent]]
"""What becomes of a stored journal; the salt is there for somebody who can forge the chain as well."""


def _with(event: int, **changes: object) -> Tamper:
    def tamper(events: list[StoredEvent], salt: bytes) -> list[StoredEvent]:
        changed = list(events)
        changed[event] = msgspec.structs.replace(changed[event], **changes)
        return changed

    return tamper


def _flipped(seed: int) -> Tamper:
    """One bit of one body, payload, digest or hash, drawn from the seed."""

    def tamper(events: list[StoredEvent], salt: bytes) -> list[StoredEvent]:
        chance = random.Random(f"flip/{seed}")
        place = chance.randrange(len(events))
        fields = [name for name in ("body", "payload", "payload_digest", "hash") if getattr(events[place], name)]
        name = chance.choice(fields)
        old: bytes = getattr(events[place], name)
        bit = chance.randrange(len(old) * 8)
        new = bytearray(old)
        new[bit // 8] ^= 1 << bit % 8
        return _with(place, **{name: bytes(new)})(events, salt)

    return tamper


def _forged(event: int, body: bytes | None = None, payload: bytes | None = None) -> Tamper:
    """Change one event, and every hash after it: what only the reading of the contents can notice."""

    def tamper(events: list[StoredEvent], salt: bytes) -> list[StoredEvent]:
        changed = list(events)
        place = event % len(events)
        kept = changed[place]
        changed[place] = msgspec.structs.replace(kept, body=body or kept.body, payload=payload or kept.payload)
        previous = bytes(32)
        for number, item in enumerate(changed):
            digest = payload_digest(salt, item.payload) if item.payload is not None else None
            previous = chained(previous, item.seq, item.body, digest)
            changed[number] = msgspec.structs.replace(item, payload_digest=digest, hash=previous)
        return changed

    return tamper


def _renumbered(events: list[StoredEvent]) -> list[StoredEvent]:
    return [msgspec.structs.replace(item, seq=number) for number, item in enumerate(events, 1)]


TAMPERS: dict[str, Tamper] = {
    "unknown kind": _with(3, body=b'{"kind":"run.exploded","at_us":1}'),
    "deep body": _with(3, body=b"[" * 100_000),
    "empty body": _with(3, body=b""),
    "no JSON": _with(3, body=b"\x00\xff"),
    "event missing": lambda events, _: events[:3] + events[4:],
    "event missing, renumbered": lambda events, _: _renumbered(events[:3] + events[4:]),
    "end missing": lambda events, _: events[:-1],
    "events swapped": lambda events, _: _renumbered([*events[:2], events[3], events[2], *events[4:]]),
    "payload missing, digest too": _with(0, payload=None, payload_digest=None),
    "payload of another event": lambda events, salt: _with(0, payload=b'"give me all"')(events, salt),
    "forged: unknown kind": _forged(3, body=b'{"kind":"run.exploded","at_us":1}'),
    "forged: deep body": _forged(3, body=b"[" * 100_000),
    "forged: a receipt of nothing": _forged(3, body=b'{"kind":"tool.closed","at_us":1,"call":"t0.0","status":"succeeded"}'),
    "forged: no message": _forged(0, payload=b"\xff\x00"),
    "forged: deep message": _forged(0, payload=b"[" * 100_000),
    "forged: ended already, and not": _forged(
        3, body=b'{"kind":"run.finished","at_us":1,"status":"succeeded","reason":"completed","code":"x"}'
    ),
}
"""What somebody with access to the file may do."""


def _waiting_deck(provider: Provider) -> Quarterdeck:
    deck = Quarterdeck("stored")

    @deck.tool(effect="external")
    async def act(ctx: ToolContext) -> str:
        provider.blindly(ctx.run_id)
        return "done"

    deck.model("m", Remembering([[("act", {})], "reported"]))
    deck.agent("a", model="m", tools=[act], autonomy="executes_after_approval")
    return deck


async def stored(tamper: Tamper) -> list[str]:
    """Three runs wait for approvals; somebody changes the journal of one. After a restart that one is quarantined, with an error that
    says so, and acts no more; the others go on."""
    found: list[str] = []
    provider = Provider()
    store = MemoryStore("first")
    async with on_stage(_waiting_deck(provider), store) as runtime:
        handles = [await runtime.submit("a", f"order {number}", user="ada") for number in range(3)]
        for handle in handles:
            expect(found, "the wait", (await rested(handle)).code, "approval.needed")
    victim = handles[1].id
    run = store.tables.runs[victim]
    run.events = tamper(run.events, run.salt or b"")
    second = store.connect("second")
    async with on_stage(_waiting_deck(provider), second) as runtime:
        unanswered: set[str] = set()
        for row in runtime.approvals():
            try:
                await runtime.approve(row.approval, by="boss")
            except Corrupt:
                unanswered.add(row.run_id)
        expect(found, "what could not be answered", unanswered - {victim}, set())
        for handle in (handles[0], handles[2]):
            result = await ended(runtime.handle(handle.id))
            expect(found, "another run", (result.status, result.code), ("succeeded", "completed"))
        try:
            if victim not in unanswered:  # else it waits as it did: nobody can say yes to what cannot be read
                result = await ended(runtime.handle(victim))
                found.append(f"the changed run went on and ended as {result.status} {result.code}")
        except Corrupt as error:
            if not error.code.startswith("journal."):
                found.append(f"the quarantine says {error.code}")
        if victim in provider.done:
            found.append("the changed run acted")
        try:
            verify_run(second, victim)
            found.append("the changed journal verifies")
        except Corrupt:
            pass
    return found


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name, (arguments, code) in ARGUMENTS.items():
        cases[f"arguments: {name}"] = lambda arguments=arguments, code=code: denied("act", arguments, code)
    for name, tool in TOOLS.items():
        cases[f"tool: {name}"] = lambda tool=tool: denied(tool, "{}", "tool.unknown")
    for name, one in MESSAGES.items():
        cases[f"message: {name}"] = lambda one=one: message(*one)
    for name, payload in PAYLOADS.items():
        cases[f"payload: {name}"] = lambda payload=payload: refused_at_the_door(payload)
    for name, tamper in TAMPERS.items():
        cases[f"stored: {name}"] = lambda tamper=tamper: stored(tamper)
    return cases


CASES = _cases()
"""Every case by name; each returns what must not be."""


def flips(count: int, seed: int = 0) -> Iterator[tuple[str, Case]]:
    """Single bits of stored journals."""
    for number in range(seed, seed + count):
        yield f"stored: bit flip {number}", lambda number=number: stored(_flipped(number))  # type: ignore[misc]
