"""What strangers send: JSON that two readers read differently, other sites' pages, too much of anything."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from quarterdeck.server import Settings
from tests.server.stage import House, open_house

HOSTILE = [
    (b"", 400, "json.invalid"),
    (b"{", 400, "json.invalid"),
    (b'{"intent": "greet"} x', 400, "json.invalid"),
    (b"\xef\xbb\xbf{}", 400, "json.invalid"),
    (b'{"intent": "greet", "intent": "slow"}', 400, "json.duplicate_key"),
    (b'{"intent": "greet", "payload": {"a": 1, "a": 1}}', 400, "json.duplicate_key"),
    (b'{"intent": "greet", "payload": NaN}', 400, "json.number"),
    (b'{"intent": "greet", "payload": -Infinity}', 400, "json.number"),
    (b'{"intent": "greet", "payload": 1e999}', 400, "json.number"),
    (b'{"intent": "greet", "payload": 9007199254740993}', 400, "json.number"),
    (b'{"intent": "greet", "payload": ' + b"9" * 100_000 + b"}", 400, "json.number"),
    (b'{"intent": "greet", "payload": "\\ud800"}', 400, "json.encoding"),
    (b'{"intent": "greet", "payload": "\xff"}', 400, "json.encoding"),
    (b'{"intent": "greet", "payload": "\xed\xa0\x80"}', 400, "json.encoding"),
    (b'{"intent": "greet", "payload": "\\u0000"}', 400, "json.nul"),
    (b'{"intent": "greet", "payload": ' + b"[" * 40 + b"]" * 40 + b"}", 400, "json.too_deep"),
    (b'{"intent": "greet", "payload": ' + b"[" * 500_000 + b"}", 400, "json.too_deep"),
    (b'{"intent": "greet", "payload": "' + b"x" * 300_000 + b'"}', 413, "json.too_large"),
    (b'{"intent": "greet", "payload": "' + b"x" * 1_048_576 + b'"}', 413, "http.body_too_large"),
]


async def test_hostile_json_is_a_problem_and_admits_nothing(house: House) -> None:
    async with house.client() as client:
        for body, status, code in HOSTILE:
            answer = await client.post("/v1/runs", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (status, code), body[:60]
        assert (await client.get("/v1/runs")).json()["runs"] == []


async def test_a_body_of_unknown_length_is_cut_at_the_limit(house: House) -> None:
    async def pieces():
        for _ in range(40):
            yield b"x" * 65_536

    async with house.client() as client:
        answer = await client.post("/v1/runs", content=pieces(), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "http.body_too_large")
        assert (await client.get("/v1/runs")).status_code == 200


async def test_other_media_types_are_refused(house: House) -> None:
    async with house.client() as client:
        form = "application/x-www-form-urlencoded"
        for kind in ("text/plain", form, "application/json; charset=latin-1", "", "application/jsonx"):
            answer = await client.post("/v1/runs", content=b'{"intent": "greet"}', headers={"content-type": kind})
            assert (answer.status_code, answer.json()["code"]) == (415, "http.media_type"), kind
        packed = await client.post("/v1/runs", json={"intent": "greet"}, headers={"content-encoding": "gzip"})
        assert packed.status_code == 415


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


async def test_pages_of_other_sites_can_do_nothing(house: House) -> None:
    async with house.client() as client:
        for headers in FOREIGN:
            answer = await client.post("/v1/runs", json={"intent": "greet"}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "http.cross_site"), headers
            read = await client.get("/v1/runs", headers=headers)
            for name in (*read.headers, *answer.headers):
                assert not name.startswith("access-control"), name
            assert "set-cookie" not in answer.headers


async def test_the_own_site_may(house: House) -> None:
    async with house.client() as client:
        headers = {"origin": house.url, "sec-fetch-site": "same-origin"}
        assert (await client.post("/v1/runs", json={"intent": "greet"}, headers=headers)).status_code == 202


async def test_a_foreign_host_name_is_refused_on_loopback(house: House) -> None:
    async with house.client() as client:
        for host in ("evil.example", "evil.example:8321", "127.0.0.1.evil.example", "[::2]"):
            for path in ("/v1/runs", "/health", "/openapi.json"):
                answer = await client.get(path, headers={"host": host})
                assert (answer.status_code, answer.json()["code"]) == (421, "http.host"), host
        for host in ("localhost", "LOCALHOST:1", "[::1]:80", "127.0.0.1"):
            assert (await client.get("/v1/runs", headers={"host": host})).status_code == 200


async def test_configured_names_replace_the_default(tmp_path: Path) -> None:
    async with open_house(tmp_path, Settings(hosts=("deck.example",))) as house, house.client() as client:
        assert (await client.get("/v1/runs", headers={"host": "DECK.example:443"})).status_code == 200
        assert (await client.get("/v1/runs", headers={"host": "localhost"})).status_code == 421


async def spoken(house: House, *pieces: bytes) -> tuple[int, dict[str, object]]:
    """What a raw connection is answered first: status and problem."""
    reader, writer = await asyncio.open_connection(*house.place)
    try:
        for piece in pieces:
            writer.write(piece)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line)
            body = await reader.readexactly(int(fields["content-length"]))
        assert fields["content-type"] == "application/problem+json"
        return int(head.split()[1]), json.loads(body)
    finally:
        writer.transport.abort()


GET = b"GET /v1/runs HTTP/1.1\r\nhost: localhost\r\n"


HARDLY_HTTP = [
    (b"nonsense\r\n\r\n", 400, "http.malformed"),
    (b"GET /v1/runs HTTP/1.1\r\n\r\n", 400, "http.malformed"),
    (GET + b"host: evil.example\r\n\r\n", 400, "http.malformed"),
    (GET + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400, "http.malformed"),
    (GET + b"x: " + b"y" * 40_000 + b"\r\n\r\n", 431, "http.head_too_large"),
    (GET + b"".join(b"x%d: y\r\n" % n for n in range(100)) + b"\r\n", 431, "http.head_too_large"),
    (b"GET http://localhost/v1/runs HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "http.malformed"),
    (b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "http.malformed"),
    (b"GET /v1//runs HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "http.not_found"),
    (b"GET /v1/runs/%ff HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ann\r\n\r\n", 404, "http.not_found"),
    (b"GET /v1/runs/%00 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ann\r\n\r\n", 404, "run.unknown"),
    (b"GET /v1/runs/ HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "http.not_found"),
    (b"GET /v1/x/../runs HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "http.not_found"),
    (GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", 401, "auth.unknown"),
    (
        b"POST /v1/runs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ann\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        400,
        "http.malformed",
    ),
]


async def test_what_is_hardly_http_is_a_problem(house: House) -> None:
    for sent, status, code in HARDLY_HTTP:
        found, problem = await spoken(house, sent)
        assert (found, problem["code"]) == (status, code), sent[:80]


async def test_a_defect_says_nothing_and_is_logged(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("plum")

    monkeypatch.setattr(house.runtime.insights, "runs", broken)
    async with house.client() as client:
        answer = await client.get("/v1/runs")
    assert (answer.status_code, answer.json()["code"]) == (500, "server.fault")
    assert "plum" not in answer.text and "plum" in caplog.text
