"""Who is slow on purpose: trickled heads and bodies, answers that are not read, connections that are only held. Real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from quarterdeck.server import Settings
from tests.server.stage import House, open_house, until

HURRIED = Settings(head_deadline_s=0.3, body_deadline_s=0.3, idle_s=1)
HEAD = b"POST /v1/runs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ann\r\ncontent-type: application/json\r\n"


async def trickled(house: House, first: bytes, drip: bytes) -> bytes:
    """What a connection is answered that sends ``first`` at once and then a byte of ``drip`` now and then, for as long as it may."""
    reader, writer = await asyncio.open_connection(*house.place)

    async def dripping() -> None:
        writer.write(first)
        for byte in drip * 100_000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)  # noqa: TID251 - being slow is what this does

    task = asyncio.get_running_loop().create_task(dripping())
    try:
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.transport.abort()


SLOW = {
    "head": (HEAD, b"x: y\r\n"),
    "head from its first byte": (b"", b"GET "),
    "body": (HEAD + b"content-length: 5000\r\n\r\n", b"["),
    "chunked body": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n[\r\n"),
    "second head": (b"GET /healthz/live HTTP/1.1\r\nhost: localhost\r\n\r\n" + HEAD, b"x: y\r\n"),
    "body that nobody wants": (b"POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\n", b"["),
}


@pytest.mark.parametrize("way", SLOW)
async def test_trickling_is_ended_and_others_are_served(tmp_path: Path, way: str) -> None:
    async with open_house(tmp_path, HURRIED) as house, house.client() as client:
        attacks = [asyncio.get_running_loop().create_task(trickled(house, *SLOW[way])) for _ in range(8)]
        while not all(attack.done() for attack in attacks):
            assert (await client.get("/v1/runs")).status_code == 200
        said = [attack.result() for attack in attacks]
        if way not in ("body that nobody wants",):
            last = said[0].rpartition(b"HTTP/1.1 ")[2]
            assert last.startswith(b"408 "), said[0]
            assert json.loads(last.partition(b"\r\n\r\n")[2])["code"] == "http.timeout"
        assert house.runtime.runs() == []


async def test_a_held_connection_is_closed_without_a_byte(tmp_path: Path) -> None:
    async with open_house(tmp_path, HURRIED) as house:
        reader, writer = await asyncio.open_connection(*house.place)
        async with asyncio.timeout(20):
            assert b"408" in await reader.read()
        writer.close()


async def test_an_idle_connection_is_closed_after_its_answer(tmp_path: Path) -> None:
    async with open_house(tmp_path, HURRIED) as house:
        reader, writer = await asyncio.open_connection(*house.place)
        writer.write(b"GET /healthz/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.read()).count(b"HTTP/1.1") == 1
        writer.close()


async def test_a_connection_too_many_is_told_so(tmp_path: Path) -> None:
    async with open_house(tmp_path, Settings(max_connections=2)) as house:
        held = [await asyncio.open_connection(*house.place) for _ in range(2)]
        reader, writer = await asyncio.open_connection(*house.place)
        async with asyncio.timeout(20):
            said = await reader.read()
        assert said.startswith(b"HTTP/1.1 503 ") and b"retry-after" in said and b"http.busy" in said
        writer.close()
        for _, each in held:
            each.transport.abort()
        async with house.client() as client:
            await until(lambda: True)
            while True:
                with contextlib.suppress(Exception):
                    if (await client.get("/healthz/live")).status_code == 200:
                        break


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    reader, writer = await asyncio.open_connection(*house.place)
    paths = ["/healthz/live", "/nothing", "/healthz/ready", "/health"] * 5
    writer.write(b"".join(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() for path in paths))
    statuses = []
    async with asyncio.timeout(20):
        for _ in paths:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            statuses.append(head.split()[1])
            await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
    writer.close()
    assert statuses == ["200", "404", "200", "200"] * 5
