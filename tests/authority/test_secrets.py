"""Secrets reach the tool's code and nothing else: journal, logs, errors, results, prints."""

from __future__ import annotations

import base64
import copyreg
import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import Budget, Quarterdeck, ToolContext, ToolFailure, UsageError
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.patching import patched
from quarterdeck.tools.secrets import SecretiveTool, Vault, forms

KEY = 'sk-live/7+"Zq?ä9-end'
WAYS = [
    "plain", "b64", "inside", "hex", "HEX", "quoted", "json", "raises", "fails", "cause", "keyerror", "reversed", "attribute",
]  # fmt: skip


class Odd(Exception):
    """An error that keeps what it was given apart from its arguments."""

    def __init__(self, kept: str) -> None:
        super().__init__("odd")
        self.kept = kept


def leaks(value: str, way: str) -> object:
    """What a careless tool does with a secret."""
    match way:
        case "plain":
            return {"authorization": f"Bearer {value}"}
        case "b64":
            return base64.b64encode(value.encode()).decode()
        case "inside":
            return base64.urlsafe_b64encode(f"user:{value}@host".encode()).decode()
        case "hex":
            return value.encode().hex()
        case "HEX":
            return value.encode().hex().upper()
        case "quoted":
            return quote(value, safe="")
        case "json":
            return json.dumps({"key": value})
        case "reversed":
            return value[::-1]
        case "raises":
            raise ValueError(f"cannot log in with {value}")
        case "fails":
            raise ToolFailure("login.failed", f"{value} was refused")
        case "keyerror":
            return {}[value]
        case "attribute":
            raise Odd(value)
        case _:
            try:
                raise ConnectionError(value)
            except ConnectionError as error:
                raise RuntimeError("no connection") from error


def bank(way: str, handles: list[object]) -> Quarterdeck:
    deck = Quarterdeck("bank")
    deck.secret("bank", call=lambda: KEY)

    @deck.tool(effect="external", secrets=["bank"])
    async def pay(ctx: ToolContext) -> object:
        """Pay."""
        handles.append(ctx.secrets["bank"])
        return leaks(ctx.secrets["bank"].reveal(), way)

    deck.agent("clerk", model=ScriptedModel([[("pay", {})], "done"]), tools=[pay], budget=Budget(turns=5))
    return deck


def seen(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.iterdir() if file.is_file())


@pytest.mark.parametrize("way", WAYS)
async def test_a_secret_is_nowhere_but_in_the_tool(tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture) -> None:
    handles: list[object] = []
    caplog.set_level(logging.DEBUG)
    async with bank(way, handles).start(tmp_path / "s.db") as rt:
        run = await rt.submit("clerk", "pay")
        await run.rest()
        events = repr(run.events(content=True)).encode()
    everything = (events + seen(tmp_path) + caplog.text.encode() + repr(handles).encode()).lower()
    assert [form for form in forms(KEY) if form.lower() in everything] == []
    assert repr(handles[0]) == "<secret bank>"
    with pytest.raises(ToolFailure) as caught:
        handles[0].reveal()  # type: ignore[attr-defined]
    assert caught.value.code == "secret.expired"
    with pytest.raises(TypeError):
        copyreg.__reduce_ex__(handles[0], 2)  # type: ignore[attr-defined]


async def test_without_redaction_it_would_be_in_the_journal(tmp_path: Path) -> None:
    with patched(Vault, "redacted", lambda self, text: text):
        async with bank("hex", []).start(tmp_path / "s.db") as rt:
            await (await rt.submit("clerk", "pay")).rest()
    assert KEY.encode().hex().encode() in seen(tmp_path)


PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=1_000), min_size=8, max_size=40).filter(str.isprintable)


@given(PRINTABLE, st.binary(max_size=7))
def test_every_form_is_found_at_every_alignment(value: str, before: bytes) -> None:
    vault = Vault()
    vault.declare("x", lambda: value)
    vault.reveal("x")
    shown = base64.b64encode(before + value.encode() + b"more")
    assert vault.redacted(shown) != shown
    for text in (value.encode(), value.encode().hex().encode(), quote(value, safe="").encode()):
        assert text not in vault.redacted(b"<" + text + b">")


def test_where_secrets_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deck = Quarterdeck("x")
    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv("SOME_KEY", "from-the-environment")
    deck.secret("a", env="SOME_KEY")
    deck.secret("b", file=tmp_path / "key")
    deck.secret("c", env="NO_SUCH_KEY")
    deck.secret("d", call=lambda: "short")
    assert (deck.vault.reveal("a"), deck.vault.reveal("b")) == ("from-the-environment", "from-a-file")
    for name, code in (("c", "secret.missing"), ("d", "secret.unusable")):
        with pytest.raises(ToolFailure) as caught:
            deck.vault.reveal(name)
        assert caught.value.code == code
    for wrong in ({}, {"env": "A", "file": "b"}):
        with pytest.raises(UsageError) as refused:
            deck.secret("e", **wrong)  # type: ignore[arg-type]
        assert refused.value.code == "secret.source"
    with pytest.raises(UsageError):
        deck.secret("a", env="OTHER")


async def test_a_secret_that_was_not_declared_stops_the_start(tmp_path: Path) -> None:
    deck = Quarterdeck("x")

    @deck.tool(effect="read", secrets=["nobody"])
    async def look() -> str:
        """Look."""
        return ""

    assert isinstance(deck.tools["look"], SecretiveTool)
    with pytest.raises(UsageError) as caught:
        await deck.start(tmp_path / "s.db").__aenter__()
    assert "'nobody'" in caught.value.message
