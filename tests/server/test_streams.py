"""Event streams: by journal sequence, cut and resumed, ended, refused, and never read."""

from __future__ import annotations

import asyncio
import json
import random  # noqa: TID251 - seeded
import socket
from pathlib import Path

from quarterdeck.server import Settings
from tests.server.stage import House, open_house, until


def parsed(text: str) -> list[tuple[int | None, str, dict]]:
    """Whole messages of a stream: id, event, data. A message that was cut off is none."""
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])))
    return found


async def read_some(house: House, run: str, after: int, budget: int) -> str:
    """What a reader gets that goes on after a sequence and disappears once it has so many bytes."""
    reader, writer = await asyncio.open_connection(*house.place)
    head = f"GET /v1/runs/{run}/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ann\r\nlast-event-id: {after}\r\n\r\n"
    try:
        writer.write(head.encode())
        status = await reader.readuntil(b"\r\n\r\n")
        if b" 204 " in status:
            return ""
        assert b" 200 " in status
        body = b""
        while len(body) < budget:
            size = int(await reader.readline(), 16)
            if not size:
                break
            body += (await reader.readexactly(size + 2))[:-2]
        return body[:budget].decode("utf-8", "ignore")
    finally:
        writer.transport.abort()


async def test_a_hundred_cuts_lose_nothing_and_repeat_nothing(house: House) -> None:
    choose, cuts = random.Random(7), 0
    async with house.client() as client:
        while cuts < 100:
            run = (await client.post("/v1/runs", json={"intent": "busy"})).json()["run_id"]
            seen: list[int] = []
            while not seen or house.runtime.show(run).row.status != "succeeded" or seen[-1] < house.runtime.show(run).row.seq:
                last = seen[-1] if seen else 0
                text = await read_some(house, run, last, choose.randrange(1, 4_000))
                seen += [seq for seq, _, _ in parsed(text) if seq is not None]
                cuts += 1
            assert seen == list(range(1, house.runtime.show(run).row.seq + 1))
    assert house.door.stage.streams.open <= 1


async def test_asking_for_a_stream_gives_the_run_from_its_first_event_to_its_last(house: House) -> None:
    async with house.client() as client:
        answer = await client.post(
            "/v1/runs", json={"intent": "greet", "payload": "you"}, headers={"accept": "text/event-stream"}
        )
        messages = parsed(answer.text)
        assert answer.headers["content-type"] == "text/event-stream"
        durable = [(seq, kind) for seq, kind, _ in messages if seq is not None]
        assert [seq for seq, _ in durable] == list(range(1, len(durable) + 1))
        assert (durable[0][1], durable[-1][1]) == ("run.admitted", "run.finished")
        assert answer.headers["location"].endswith(messages[0][2]["body"]["contract"]["run_id"])
        assert messages[-1][2]["content"] == {"text": "hello you"}


async def test_deltas_come_without_an_id_and_only_with_contents(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        async with (
            client.stream("GET", f"/v1/runs/{run}/events") as full,
            client.stream("GET", f"/v1/runs/{run}/events?content=false") as bare,
        ):
            await until(lambda: house.door.stage.streams.open == 2)
            await until(lambda: house.runtime.parts.hub.watched(run))
            house.shop.gate.set()
            shown, hidden = parsed((await full.aread()).decode()), parsed((await bare.aread()).decode())
    deltas = [data for seq, kind, data in shown if kind == "model.delta" and seq is None]
    assert deltas == [{"text": "done waiting"}]
    assert "done waiting" not in str(hidden)
    assert {data.get("content") for _, _, data in hidden} == {None}
    assert [seq for seq, _, _ in hidden] == [seq for seq, _, _ in shown if seq is not None]


async def test_a_cursor_that_names_nothing_gives_a_gap_and_then_everything(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "greet"}, headers={"prefer": "wait=20"})).json()["run_id"]
        for cursor in ("999", "-1", "abc", "1.5", "٣", "9" * 30):
            answer = await client.get(f"/v1/runs/{run}/events", params={"after": cursor})
            gap, *rest = parsed(answer.text)
            assert gap == (None, "stream.gap", {"asked": cursor, "resumes_after": 0})
            assert [seq for seq, _, _ in rest] == list(range(1, len(rest) + 1)) and rest[-1][1] == "run.finished"


async def test_the_header_wins_over_the_parameter_and_the_end_is_told(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "greet"}, headers={"prefer": "wait=20"})).json()
        path = f"/v1/runs/{run['run_id']}/events"
        answer = await client.get(path + "?after=1", headers={"last-event-id": "3"})
        assert parsed(answer.text)[0][0] == 4


async def test_after_the_end_there_is_nothing_however_it_is_asked_for(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "greet"}, headers={"prefer": "wait=20"})).json()
        path, last = f"/v1/runs/{run['run_id']}/events", str(run["seq"])
        asked = ({"after": last}, {"after": last, "follow": "false"}, {"after": last, "content": "false"})
        ends = [await client.get(path, params=params) for params in asked]
        ends.append(await client.get(path, headers={"last-event-id": last}))
        assert {(end.status_code, end.content) for end in ends} == {(204, b"")}
        before = await client.get(path, params={"after": str(run["seq"] - 1)})
        assert [kind for _, kind, _ in parsed(before.text)] == ["run.finished"]
        slow = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        await until(lambda: house.runtime.show(slow).progress is not None)  # the last thing until the gate opens
        present = house.runtime.show(slow).row.seq
        still = await client.get(f"/v1/runs/{slow}/events", params={"after": str(present), "follow": "false"})
        assert (still.status_code, still.content) == (200, b""), "it has not ended: more may come"
        house.shop.gate.set()


async def test_progress_is_an_event_of_the_stream_and_a_field_of_the_run_with_its_note_only_for_who_may_read(
    house: House,
) -> None:
    async with house.client() as client, house.client("opa") as operator:
        run = (await client.post("/v1/runs", json={"intent": "slow", "mode": None})).json()
        path = f"/v1/runs/{run['run_id']}"
        assert run["progress"] is None
        async with client.stream("GET", path + "/events") as stream:
            text = ""
            async for piece in stream.aiter_text():
                text += piece
                if "run.progress" in text and text.endswith("\n\n"):
                    break
        [(seq, _, data)] = [each for each in parsed(text) if each[1] == "run.progress"]
        assert seq is not None, "it resumes like every other event"
        assert (data["body"], data["content"]) == ({"call": "t0.0", "done": 1, "total": 2}, "at the door")
        shown = (await client.get(path)).json()["progress"]
        assert shown == {"call": "t0.0", "done": 1, "total": 2, "note": "at the door", "at_us": data["at_us"]}
        bare = (await operator.get(path, params={"content": "false"})).json()["progress"]
        assert bare == {**shown, "note": ""}
        hidden = await operator.get(path + "/events", params={"content": "false", "follow": "false"})
        assert "run.progress" in hidden.text and "at the door" not in hidden.text
        house.shop.gate.set()


async def test_without_following_it_ends_at_the_present(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        await until(lambda: house.runtime.show(run).row.status == "running")
        answer = await client.get(f"/v1/runs/{run}/events?follow=false")
        assert parsed(answer.text)[-1][1] != "run.finished"
        house.shop.gate.set()


async def test_a_quiet_stream_has_a_pulse_and_ends_with_a_word_when_the_door_closes(tmp_path: Path) -> None:
    async with open_house(tmp_path, Settings(heartbeat_s=0.02)) as house, house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        text = ""
        async with client.stream("GET", f"/v1/runs/{run}/events") as stream:
            async for piece in stream.aiter_text():
                text += piece
                if ":\n\n" in text:
                    house.door.closing.set()
        assert parsed(text)[-1][1:] == ("stream.closing", {"code": "server.stopping", "resume_after": "the last id"})


async def test_streams_are_counted_per_caller(tmp_path: Path) -> None:
    async with open_house(tmp_path, Settings(max_streams_per_caller=1, max_streams=2)) as house, house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        path = f"/v1/runs/{run}/events"
        async with client.stream("GET", path):
            await until(lambda: house.door.stage.streams.open == 1)
            more = await client.get(path)
            assert (more.status_code, more.json()["code"]) == (429, "http.streams")
            assert int(more.headers["retry-after"]) >= 1
            before = len(house.runtime.runs())
            asked = await client.post("/v1/runs", json={"intent": "slow"}, headers={"accept": "text/event-stream"})
            assert (asked.status_code, len(house.runtime.runs())) == (429, before)
            async with house.client("bob") as other, other.stream("GET", path) as allowed:
                assert allowed.status_code == 200
                async with house.client("vic") as third:
                    full = await third.get(path)
                    assert (full.status_code, full.json()["code"]) == (503, "http.busy")
        await until(lambda: house.door.stage.streams.open == 0)


async def test_who_never_reads_is_cut_off_and_holds_little(tmp_path: Path) -> None:
    """The reader's window is closed; the run says much. Its connection is aborted, its buffers stay small, others see everything."""
    async with open_house(tmp_path, Settings(write_deadline_s=0.2)) as house, house.client() as client:
        big = "x" * 200_000
        run = (await client.post("/v1/runs", json={"intent": "greet", "payload": big}, headers={"prefer": "wait=20"})).json()
        sink = socket.socket()
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sink.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sink, house.place)
        head = f"GET /v1/runs/{run['run_id']}/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ann\r\n\r\n"
        # Many requests on one connection that is never read: more than the kernel takes.
        await loop.sock_sendall(sink, head.encode() * 40)
        connections = house_connections(house)
        await until(lambda: any(each.transport.get_write_buffer_size() for each in connections()))
        most = max(each.transport.get_write_buffer_size() for each in connections())
        await until(lambda: all(not each.transport.get_write_buffer_size() for each in connections()))
        sink.close()
        assert most < 3_000_000
        again = await client.get(f"/v1/runs/{run['run_id']}/events")
        assert [seq for seq, _, _ in parsed(again.text)] == list(range(1, run["seq"] + 1))


def house_connections(house: House):
    """The connections of a door's server."""
    import gc

    from quarterdeck.server.protocol import GuardedProtocol

    def found() -> list[GuardedProtocol]:
        return [each for each in gc.get_objects() if type(each) is GuardedProtocol and each in each.connections]

    return found
