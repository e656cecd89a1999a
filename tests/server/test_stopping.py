"""Stopping in order: the listener first, then streams and waits, then what is under way; a second signal cuts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import quarterdeck
from quarterdeck.core.errors import UsageError
from quarterdeck.server import Settings, listen
from tests.server.stage import open_house, until
from tests.server.test_streams import parsed

SERVER = textwrap.dedent('''
    import asyncio, sys
    from quarterdeck import Quarterdeck
    from quarterdeck.server import Settings, create_app, listen, serve
    from quarterdeck.testing import ScriptedModel

    deck = Quarterdeck("shop")

    @deck.tool(effect="read")
    async def wait_for_ever() -> str:
        """Never come back."""
        await asyncio.Event().wait()
        return ""

    deck.agent("slow", model=ScriptedModel([[("wait_for_ever", {})], "done"]), tools=[wait_for_ever])

    async def main():
        settings = Settings(port=0, insecure_loopback=True)
        async with deck.start(sys.argv[1], drain_s=0.0) as runtime:
            await serve(create_app(runtime, None, settings), ready=lambda url: print(url, flush=True))
        print("stopped in order", flush=True)

    asyncio.run(main())
''')


def started(tmp_path: Path) -> tuple[subprocess.Popen[str], tuple[str, int]]:
    """A server in a process of its own, and where it is."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    env = os.environ | {"PYTHONPATH": str(Path(quarterdeck.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "store.db")],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    host, _, port = process.stdout.readline().strip().removeprefix("http://").rpartition(":")
    return process, (host, int(port))


async def streaming(place: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that has begun."""
    reader, writer = await asyncio.open_connection(*place)
    body = b'{"intent": "slow"}'
    head = b"POST /v1/runs HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\ncontent-type: application/json\r\n"
    writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"run.admitted")
    return reader, writer


async def test_a_signal_ends_streams_with_a_word_and_the_process_in_order(tmp_path: Path) -> None:
    process, place = started(tmp_path)
    try:
        reader, writer = await streaming(place)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            rest = await reader.read()
        assert b"event: stream.closing" in rest and rest.endswith(b"0\r\n\r\n")
        writer.close()
        out, err = await asyncio.to_thread(process.communicate, timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "stopped in order\n"), err


async def test_a_second_signal_cuts_what_is_under_way(tmp_path: Path) -> None:
    process, place = started(tmp_path)
    try:
        # A body that is still coming is a request under way, for which the first signal waits.
        reader, writer = await asyncio.open_connection(*place)
        writer.write(
            b"POST /v1/runs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
        )
        other, held = await streaming(place)
        process.send_signal(signal.SIGTERM)
        await other.readuntil(b"stream.closing")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        for each in (writer, held):
            each.transport.abort()
        out, err = await asyncio.to_thread(process.communicate, timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "stopped in order\n"), err


async def test_a_wait_is_handed_off_and_readiness_says_no(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.client() as client:
        waiting = asyncio.get_running_loop().create_task(
            client.post("/v1/runs", json={"intent": "slow"}, headers={"prefer": "wait=30"})
        )
        await until(lambda: len(house.runtime.runs()) == 1 and house.runtime.runs()[0].status == "running")
        house.door.closing.set()
        answer = await waiting
        assert (answer.status_code, "location" in answer.headers) == (202, True)
        ready = await client.get("/healthz/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert (await client.get("/healthz/live")).status_code == 200


async def test_a_stopped_runtime_ends_streams_and_is_not_ready_but_alive(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        async with client.stream("GET", f"/v1/runs/{run}/events") as stream:
            await until(lambda: house.runtime.parts.hub.watched(run))
            await house.runtime.stop(0.0)
            last = parsed((await stream.aread()).decode())[-1]
        assert last[1] == "stream.closing" and last[2]["code"] == "runtime.stopped"
        refused = await client.post("/v1/runs", json={"intent": "slow"})
        assert (refused.status_code, refused.json()["code"]) == (503, "store.closed")
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/healthz/live")).status_code == 200


async def test_at_capacity_it_is_not_ready_and_takes_runs_all_the_same(tmp_path: Path) -> None:
    async with open_house(tmp_path, max_active=1) as house, house.client() as client:
        assert (await client.get("/healthz/ready")).status_code == 200
        run = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        await until(lambda: house.runtime.active == 1)
        busy = await client.get("/healthz/ready")
        assert (busy.status_code, busy.json()) == (503, {"status": "busy", "code": "server.busy"})
        assert (await client.post("/v1/runs", json={"intent": "greet"})).status_code == 202
        assert (await client.get("/health")).json()["tasks_in_flight"] >= 1
        house.shop.gate.set()
        assert (await house.runtime.handle(run).result(20)).ok


def test_a_port_that_is_taken_is_a_sentence() -> None:
    taken = listen(Settings(port=0))
    try:
        with pytest.raises(UsageError, match=r"server\.address: cannot listen"):
            listen(Settings(port=taken.getsockname()[1]))
    finally:
        taken.close()


@pytest.mark.parametrize("wrong", [{"port": 70_000}, {"max_body_bytes": 0}, {"head_deadline_s": -1.0}, {"max_head_bytes": 10}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"server\.settings"):
        Settings(**wrong)  # type: ignore[arg-type]
