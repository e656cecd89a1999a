"""The key goes to one place and shows itself nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import traceback
from typing import Any

import pytest

from quarterdeck.client import AsyncClient, Client, ClientError, Retry
from tests.client.hands import Hands
from tests.client.weather import served
from tests.server.stage import House

KEY = "qd_5ecret-of-nobody-else"


@pytest.mark.parametrize(
    "url",
    [
        "http://deck.example",
        "http://10.0.0.1:8321",
        "http://127.0.0.1.deck.example",
        "http://localhost.deck.example",
        "http://0.0.0.0:8321",
        "ftp://deck.example",
        "deck.example",
        "https://",
        "https://user:word@deck.example",
        "https://deck.example/?key=1",
        "https://deck.example/#x",
        "https://deck.example/a/../b",
        "https://deck.example//x",
        "https://deck.example:port",
        "https://deck.example:99999",
        "https://dëck.example",
        "https://deck.example\\@evil.example",
        "https://deck.example\n.evil.example",
        "http://[::1",
        "",
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_addresses_that_are_not_taken(kind: type, url: str) -> None:
    with pytest.raises(ClientError) as caught:
        kind(url, KEY)
    assert caught.value.code == "client.url"


@pytest.mark.parametrize(
    ("url", "insecure"),
    [
        ("https://deck.example/base", False),
        ("http://127.0.0.1:1", False),
        ("http://127.8.8.8", False),
        ("http://[::1]:1", False),
        ("http://LOCALHOST", False),
        ("http://deck.example", True),
    ],
)
def test_addresses_that_are_taken(url: str, insecure: bool) -> None:
    with Client(url, KEY, insecure=insecure) as client:
        assert repr(client) == f"Client({url!r})"


@pytest.mark.parametrize("key", ["", "two words", "line\nfeed", "naïve", "x" * 9_000, "\x7f", b"bytes", 5])
def test_keys_that_are_none(key: Any) -> None:
    for given in (key, lambda: key):
        with pytest.raises(ClientError) as caught, Client("http://127.0.0.1:1", given, retry=Retry(for_s=0.0)) as client:
            client.health()
        assert caught.value.code == "client.key"
        assert not key or str(key) not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "\ud800"])
def test_names_that_lead_elsewhere(name: str) -> None:
    with Client("http://127.0.0.1:1", KEY) as client:
        for verb in (client.run(name).show, client.run(name).events, lambda: client.approve(name)):
            with pytest.raises(ClientError) as caught:
                verb()
            assert caught.value.code == "client.name"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says back whatever it is told, as a proxy's error page might."""
    head = await reader.readuntil(b"\r\n\r\n")
    said = head.decode().partition("authorization: ")[2].splitlines()[0]
    body = json.dumps({"code": "some.code", "detail": f"you said {said}"}).encode()
    told = "HTTP/1.1 403 no\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n\r\n"
    writer.write((told % len(body)).encode() + body)


async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


@pytest.mark.parametrize("server", [echo, gone], ids=lambda server: server.__name__)
async def test_the_key_is_in_no_repr_no_log_and_no_error(hands: Hands, server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.NOTSET)
    async with served(server) as url, hands.client(url, KEY, retry=Retry(for_s=0.0)) as client:
        run = client.run("r")
        for verb in (run.show, run.events, run.result, client.tools):
            with pytest.raises(ClientError) as caught:
                await hands.do(verb)
            error = caught.value
            said = "".join(traceback.format_exception(error)) + repr(vars(error)) + repr(error.__context__)
            assert KEY not in said
        shown = repr(client) + repr(run) + repr(client._desk) + repr(client._desk.to) + repr(vars(client._desk.to))
    assert KEY not in shown and KEY not in caplog.text
    assert caplog.records


async def test_a_key_can_be_asked_for_at_each_request(house: House, hands: Hands) -> None:
    keys = iter(["ann", "nobody", "ann"])
    async with hands.client(house.url, lambda: next(keys)) as client:
        assert list(await hands.all(client.runs)) == []
        with pytest.raises(ClientError) as caught:
            await hands.all(client.runs)
        assert caught.value.code == "auth.unknown"


async def test_no_redirect_is_followed(hands: Hands) -> None:
    asked: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))

    async with served(elsewhere) as other:
        place = f"{other}/v1/tools"

        async def sends_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 307 there\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n".encode())

        async with served(sends_away) as url, hands.client(url, KEY) as client:
            for verb in (client.tools, client.run("r").events):
                with pytest.raises(ClientError) as caught:
                    await hands.do(verb)
                assert (caught.value.code, caught.value.status) == ("client.redirect", 307)
    assert asked == []


async def test_the_environment_has_no_say(house: House, hands: Hands, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login vic password vic\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with hands.client(house.url) as client:
        assert (await hands.do(client.submit, "greet", wait_s=20)).last.user == "ann"


async def test_a_server_that_nobody_vouches_for_is_told_nothing(hands: Hands) -> None:
    got: list[bytes] = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(65_536))

    async with served(plain) as url:
        url = url.replace("http://127.0.0.1", "https://localhost")
        context = ssl.create_default_context()
        async with hands.client(url, KEY, tls=context, retry=Retry(for_s=0.0)) as client:
            with pytest.raises(ClientError) as caught:
                await hands.do(client.health)
    assert caught.value.code == "client.unreachable" and KEY.encode() not in b"".join(got)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"timeout_s": 0.0}, "client.setting"),
        ({"silence_s": -1.0}, "client.setting"),
        ({"timeout_s": float("nan")}, "client.setting"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, float], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        Client("http://127.0.0.1:1", KEY, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    for wrong in ({"for_s": -1.0}, {"base_s": 2.0, "cap_s": 1.0}, {"cap_s": float("inf")}):
        with pytest.raises(ClientError):
            Retry(**wrong)
