"""T10: a tool that is careless with a secret, in whatever way, while everything that the runtime writes is searched for it.

The secret is drawn: text of any script, with quotes, slashes and percent signs in it. The tool reveals it and returns it, or a few of its
encodings inside other text, raises it as an error, as the cause of one, or as a key, publishes it as a message, keeps the handle. Searched
are the store's files, byte by byte, what the model is shown, what the door shows, and the process's own log.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

from proof.attempts import Tried, suite_of
from proof.stage import PATIENCE_S, PushedClock, Remembering
from quarterdeck import Budget, Quarterdeck, ToolContext, ToolFailure
from quarterdeck.app.oversight import proof_of
from quarterdeck.ports.outbox import Message
from quarterdeck.testing.patching import Plant, patched
from quarterdeck.tools import secrets
from quarterdeck.tools.secrets import Handle, SecretiveTool, Vault, forms

LETTERS = "abcXYZ019-_/+=%&<>'\"\\ äßéłЖ中🔑"
ENCODINGS: tuple[Callable[[str], str], ...] = (
    lambda value: value,
    lambda value: value.encode().hex(),
    lambda value: value.encode().hex().upper(),
    lambda value: base64.b64encode(value.encode()).decode(),
    lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    lambda value: base64.urlsafe_b64encode(f"{value}@host".encode()).decode(),
    lambda value: quote(value, safe=""),
    quote_plus,
    json.dumps,
    lambda value: json.dumps({"key": value}, ensure_ascii=False),
    lambda value: value[::-1],
)


class Heard(logging.Handler):
    """Everything that the process logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"


def careless(value: str, shown: str, way: int, ctx: ToolContext) -> object:
    """What a tool does with a secret, in one of its forms."""
    text = f"it says {shown} and nothing else"
    match way:
        case 0:
            return {"told": text}
        case 1:
            return [text, {shown[:60]: 1}]
        case 2:
            raise ToolFailure("login.failed", text)
        case 3:
            raise ToolFailure("login.failed", text, done=None)
        case 4:
            return {}[value]
        case 5:
            try:
                raise ConnectionError(text)
            except ConnectionError as error:
                raise RuntimeError("no connection") from error
        case 6:
            raise OSError(5, text, shown)
        case _:
            ctx.publish("news", {"told": text}, key=shown[:60], headers=(("x-told", shown),))
            return "told"


WAYS = 8


async def leaked(seed: int) -> Tried:
    """One secret, and every way of being careless with it, in forms that are drawn."""
    rng = random.Random(seed)
    value = "".join(rng.choices(LETTERS, k=rng.randint(8, 40))).strip().ljust(8, "x")
    handles: list[object] = []
    heard, model = Heard(), Remembering([[("use", {"way": way})] for way in range(WAYS)] + ["over"])
    deck = Quarterdeck("leaks")
    deck.secret("key", call=lambda: value)

    @deck.outbox("news")
    async def receive(message: Message) -> None:
        handles.append(message)

    @deck.tool(effect="external", secrets=["key"], transactional=True)
    async def use(way: int, ctx: ToolContext) -> object:
        """Use it."""
        handles.append(ctx.secrets["key"])
        return careless(ctx.secrets["key"].reveal(), rng.choice(ENCODINGS)(value), way, ctx)

    limits = Budget(turns=WAYS + 2, tools=WAYS, context=1_000_000)
    deck.agent("clerk", model=model, tools=[use], budget=limits)
    root = logging.getLogger()
    root.addHandler(heard)
    try:
        with tempfile.TemporaryDirectory(prefix="qdproof-") as folder:
            async with deck.start(Path(folder) / "s.db", clock=PushedClock()) as runtime:
                run = await runtime.submit("clerk", "go")
                result = await run.rest(PATIENCE_S)
                seen = repr((run.events(content=True), proof_of(runtime.insights, run.id), runtime.insights.posts(), result))
            files = _bytes(Path(folder))
    finally:
        root.removeHandler(heard)
    everything = files + "\n".join((seen, heard.text, repr(model.shown), repr(handles))).encode()
    everything = everything.lower()
    found = [f"{value!r} as {form!r}" for form in forms(value) if len(form) >= 8 and form.lower() in everything]
    for handle in handles:
        if isinstance(handle, Handle):
            try:
                found.append(f"{value!r}: {handle.reveal()!r} after its call")
            except ToolFailure:
                continue
    return WAYS, found + ([] if len(handles) >= WAYS else [f"only {len(handles)} calls were made, {result.code}"])


def _bytes(folder: Path) -> bytes:
    return b"".join([file.read_bytes() for file in folder.iterdir() if file.is_file()])


def _plain_only(value: str) -> set[bytes]:
    return {value.encode()}


PLANTS: dict[str, Plant] = {
    "what comes back is not searched": lambda: patched(Vault, "redacted", lambda self, text: text),
    "a secret has one form": lambda: patched(secrets, "forms", _plain_only),
    "errors are passed on": lambda: patched(SecretiveTool, "_holds", lambda self, error: False),
    "messages are passed on": lambda: patched(SecretiveTool, "_sent", lambda self, post: post),
    "a handle lasts": lambda: patched(Handle, "reveal", lambda self: self._vault.reveal(self._name)),
}

SUITES = (suite_of("secrets", leaked, PLANTS, quick=4, whole=200, told=True),)
