"""A provider's key set: fetched within bounds, remembered, renewed when keys rotate, and never loaded by made-up names."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from quarterdeck.core.errors import QuarterdeckError, Unauthenticated, Unavailable, UsageError
from quarterdeck.server.identity import OidcAuthenticator
from quarterdeck.server.identity import published as room
from quarterdeck.server.identity.published import (
    KEYS_FRESH_S,
    KEYS_STALE_S,
    MAX_KEY_SET,
    PublishedKeys,
    checked_url,
    fetched,
    usable_keys,
)
from quarterdeck.testing.clock import VirtualClock, run
from tests.server.identity import provider as idp
from tests.server.identity.provider import EC, OTHER_RSA, RSA, Provider, claims, header, signed, token


class Door:
    """One authenticator over time."""

    def __init__(self, *keys: Any) -> None:
        self.clock = VirtualClock()
        self.provider = Provider(*keys)
        self.door = idp.authenticator(self.clock, self.provider, max_lifetime_s=86_400)

    def ask(self, text: str) -> str:
        try:
            return run(self.door.authenticate(f"Bearer {text}")).subject
        except QuarterdeckError as error:
            return error.code


LONG = {"exp": idp.NOW_S + 80_000}


def test_keys_are_fetched_once_for_many_tokens() -> None:
    door = Door()
    assert [door.ask(token()) for _ in range(5)] == ["ada"] * 5
    assert door.provider.asked == 1


def test_many_requests_at_once_share_one_fetch() -> None:
    async def story() -> int:
        mine, gate = Provider(), asyncio.Event()

        async def slow(url: str) -> bytes:
            answer = await mine.fetch(url)
            await gate.wait()
            return answer

        keys = PublishedKeys(f"{idp.ISSUER}/keys", VirtualClock(), slow)
        first = asyncio.create_task(keys.find("rsa-1", "RSA"))
        while not mine.asked:
            await asyncio.wait([first], timeout=0.001)
        rest = [asyncio.create_task(keys.find("rsa-1", "RSA")) for _ in range(20)]
        await asyncio.wait(rest, timeout=0.001)
        gate.set()
        assert all(key is not None for key in await asyncio.gather(first, *rest))
        return mine.asked

    assert run(story()) == 1


def test_a_rotation_is_noticed_at_once() -> None:
    door = Door(RSA)
    assert door.ask(token()) == "ada"
    door.provider.answer = idp.published(RSA, OTHER_RSA)
    assert door.ask(token(OTHER_RSA)) == "ada"
    assert door.provider.asked == 2


def test_a_withdrawn_key_is_good_no_longer_than_the_key_set_is_fresh() -> None:
    door = Door(RSA, OTHER_RSA)
    assert door.ask(token(**LONG)) == "ada"
    door.provider.answer = idp.published(OTHER_RSA)
    door.clock.advance(KEYS_FRESH_S - 1)
    assert door.ask(token(**LONG)) == "ada"
    door.clock.advance(1)
    assert door.ask(token(**LONG)) == "auth.token_invalid"


def test_made_up_key_names_do_not_load_the_provider() -> None:
    door = Door()
    door.ask(token())
    for number in range(200):
        assert door.ask(signed(header(kid=f"made-up-{number}"), claims())) == "auth.token_invalid"
    assert door.provider.asked <= 3
    assert door.ask(token()) == "ada"
    door.clock.advance(10)
    door.provider.answer = idp.published(RSA, OTHER_RSA)
    assert door.ask(token(OTHER_RSA)) == "ada"


def test_an_outage_is_bridged_for_an_hour_and_then_lets_nobody_in() -> None:
    door = Door()
    assert door.ask(token(**LONG)) == "ada"
    door.provider.answer = None
    door.clock.advance(KEYS_STALE_S - 1)
    assert door.ask(token(**LONG)) == "ada"
    door.clock.advance(1)
    assert door.ask(token(**LONG)) == "auth.keys_unavailable"
    for _ in range(50):
        assert door.ask(token(**LONG)) == "auth.keys_unavailable"
    assert door.provider.asked <= 5
    door.provider.answer = idp.published(RSA)
    door.clock.advance(10)
    assert door.ask(token(**LONG)) == "ada"


def test_without_any_keys_nobody_is_let_in() -> None:
    door = Door()
    door.provider.answer = None
    assert door.ask(token()) == "auth.keys_unavailable"


def test_a_cancelled_request_leaves_nobody_waiting() -> None:
    async def story() -> None:
        mine, gate = Provider(), asyncio.Event()

        async def stuck_once(url: str) -> bytes:
            answer = await mine.fetch(url)
            if mine.asked == 1:
                await gate.wait()
            return answer

        keys = PublishedKeys(f"{idp.ISSUER}/keys", VirtualClock(), stuck_once)
        first = asyncio.create_task(keys.find("rsa-1", "RSA"))
        while not mine.asked:
            await asyncio.wait([first], timeout=0.001)
        second = asyncio.create_task(keys.find("rsa-1", "RSA"))
        await asyncio.wait([second], timeout=0.001)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await keys.find("rsa-1", "RSA") is not None
        assert await second is not None
        assert mine.asked == 2

    run(story())


@pytest.mark.parametrize("answer", [
    b"", b"[]", b"{", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1, null, "x", []]}', b'{"keys": [{"kty": "RSA"}]}', b"<html>",
    b"\xff\xfe",
    b'{"keys": [], "keys": []}', json.dumps({"keys": [EC.as_dict(private=False)] * 65}).encode(),
    b'{"keys": [{"kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA"}]}',
    b'{"keys": [{"kty": "RSA", "kid": "a", "n": "!", "e": "AQAB"}]}',
    b'{"keys": [{"kty": "OKP", "kid": "a", "crv": "Ed25519", "x": "AA"}]}', b'{"keys": [{"kty": ["RSA"], "kid": "a"}]}',
])  # fmt: skip
def test_what_is_no_usable_key_set_leaves_the_known_one_alone(answer: bytes) -> None:
    with pytest.raises(Unavailable, match=r"auth\.keys_unavailable"):
        usable_keys(answer)
    door = Door()
    assert door.ask(token(**LONG)) == "ada"
    door.provider.answer = answer
    door.clock.advance(KEYS_FRESH_S)
    assert door.ask(token(**LONG)) == "ada"
    assert door.provider.asked == 2


@pytest.mark.parametrize(
    "url", ["https://id.example/keys", "http://127.0.0.1:8080/keys", "http://localhost/keys", "http://[::1]/keys"]
)
def test_keys_come_from_where_nobody_can_change_them(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url", ["http://id.example/k", "http://127.0.0.1.example.com/k", "ftp://x/k", "https://", "", "http://10.0.0.1/k", "//x/k"]
)
def test_keys_come_from_nowhere_else(url: str) -> None:
    with pytest.raises(UsageError, match=r"auth\.url"):
        checked_url(url)


Answer = Callable[[asyncio.StreamWriter], None]


@asynccontextmanager
async def server(answer: Answer, *, close: bool = True) -> AsyncIterator[str]:
    """A real HTTP server on this machine that answers every request with ``answer``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            answer(writer)
            if not close:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield f"http://127.0.0.1:{port}/keys"


def http(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Answer:
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return lambda writer: writer.write("\r\n".join(head).encode() + body)


async def test_a_token_is_verified_with_keys_from_a_real_server() -> None:
    async with server(http(idp.published(RSA))) as url:
        door = OidcAuthenticator(idp.settings(key_set_url=url), VirtualClock())
        assert (await door.authenticate(f"Bearer {token()}")).subject == "ada"
        with pytest.raises(Unauthenticated):
            await door.authenticate(f"Bearer {token(OTHER_RSA)}")


@pytest.mark.parametrize("answer", [
    http(idp.published(RSA), "500 Oops"), http(b"", "302 Found", "Location: https://evil.example/keys"), http(b"", "204 No Content"),
    http(b"x" * (MAX_KEY_SET + 1)), http(idp.published(RSA), length=10**9),
    lambda writer: writer.write(b"not HTTP\r\n\r\n"), lambda writer: None,
], ids=["500", "redirect", "204", "too long", "cut short", "no HTTP", "closed"])  # fmt: skip
async def test_a_server_that_answers_badly_is_unavailable(answer: Answer) -> None:
    async with server(answer) as url:
        with pytest.raises(Unavailable, match=r"auth\.keys_unavailable"):
            await fetched(url)


async def test_a_compressed_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 50_000_000 + idp.published(RSA))
    assert len(bomb) < MAX_KEY_SET
    async with server(http(bomb, "200 OK", "Content-Encoding: gzip")) as url:
        body = await fetched(url)
        assert body == bomb
        with pytest.raises(Unavailable):
            usable_keys(body)


async def test_a_server_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FETCH_S", 0.05)
    for answer in (http(b"{", length=100), lambda writer: None):
        async with server(answer, close=False) as url:
            with pytest.raises(Unavailable, match=r"auth\.keys_unavailable"):
                await fetched(url)


async def test_a_server_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time; all of them together do not."""
    monkeypatch.setattr(room, "FETCH_S", 0.05)
    body = idp.published(RSA)

    def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())

        def rest(start: int) -> None:
            if start < len(body) and not writer.is_closing():
                writer.write(body[start : start + 8])
                asyncio.get_running_loop().call_later(0.01, rest, start + 8)

        rest(0)

    async with server(trickle, close=False) as url:
        with pytest.raises(Unavailable, match=r"auth\.keys_unavailable"):
            await fetched(url)


async def test_a_port_where_nobody_listens_is_unavailable() -> None:
    async with server(http(b"")) as url:
        pass
    with pytest.raises(Unavailable, match=r"auth\.keys_unavailable"):
        await fetched(url)
