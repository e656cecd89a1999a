"""Connections that break at any byte: nothing lost, nothing repeated, nothing done twice."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - seeded
from itertools import count
from pathlib import Path

import msgspec
import pytest

from quarterdeck.client import ClientError, Retry, Unreachable
from quarterdeck.server import Settings
from tests.client.hands import Hands
from tests.client.weather import Weather, served, weather
from tests.server.stage import House, open_house, until

ONCE = Retry(for_s=0.0)


def first(count: int, verb: bytes, left: int = 0) -> object:
    """A rule: the answers to the first so many requests of this kind are lost after ``left`` bytes."""
    lost = [count]

    def rule(request: bytes) -> int | None:
        if request.startswith(verb) and lost[0]:
            lost[0] -= 1
            return left
        return None

    return rule


async def test_a_hundred_cuts_lose_nothing_and_repeat_nothing(house: House, hands: Hands) -> None:
    choose, runs = random.Random(11), 0

    def rule(request: bytes) -> int | None:
        return choose.randrange(0, 5_000) if b"/events" in request else None

    async with weather(house.place, rule) as sky, hands.client(sky.url) as client:
        while sky.cuts < 100:
            run = await hands.do(client.submit, "busy")
            events = await hands.all(run.follow)
            journal = house.runtime.handle(run.id).events(content=True)
            durable = [msgspec.to_builtins(event) for event in events if event.durable]
            assert durable == [msgspec.to_builtins(view) for view in journal]
            assert {event.kind for event in events if not event.durable} <= {"model.delta"}
            runs += 1
    assert sky.cuts >= 100 and len(sky.seen) >= sky.cuts + runs


async def test_the_journal_and_the_result_come_through_cuts_as_well(house: House, hands: Hands) -> None:
    choose = random.Random(5)

    def rule(request: bytes) -> int | None:
        return choose.randrange(0, 9_000) if request.startswith(b"GET ") else None

    async with weather(house.place, rule) as sky, hands.client(sky.url) as client:
        while sky.cuts < 20:
            run = await hands.do(client.submit, "busy")
            assert (await hands.do(run.result, 20)).text == "all found"
            journal = house.runtime.handle(run.id).events(content=True)
            assert [event.seq for event in await hands.do(run.events, content=True)] == [view.seq for view in journal]
            assert (await hands.do(run.show)).seq == len(journal)


@pytest.mark.parametrize("left", [0, 1, 40, 200, 400])
async def test_a_lost_answer_makes_no_second_run(house: House, hands: Hands, left: int) -> None:
    async with weather(house.place, first(3, b"POST ", left)) as sky, hands.client(sky.url) as client:
        run = await hands.do(client.submit, "greet", "you", wait_s=20)
        assert run.last.result.text == "hello you"
    assert (sky.cuts, len(sky.seen)) == (3, 4)
    assert [row.run_id for row in house.runtime.runs()] == [run.id]
    keys = {request.partition(b'"idempotency_key": ')[2].split(b",")[0].split(b"}")[0] for request in sky.seen}
    assert len(keys) == 1 and len(keys.pop()) > 30


async def test_two_runs_that_are_asked_for_are_two(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        one, other = await hands.do(client.submit, "greet"), await hands.do(client.submit, "greet")
    assert one.id != other.id and not one.existing and not other.existing


async def test_a_decision_whose_answer_is_lost_is_made_once_and_recognised(house: House, hands: Hands) -> None:
    async with weather(house.place, first(2, b"POST ", 9)) as sky, hands.client(sky.url, "bob") as client:
        async with hands.client(house.url) as asker:
            run = await hands.do(asker.submit, "support")
        await until(lambda: (row := house.runtime.insights.run(run.id)) is not None and row.status == "waiting")
        [waiting] = await hands.all(client.approvals)
        answered = await hands.do(client.approve, waiting, reason="known customer")
        assert (answered.status, answered.decided_by) == ("approved", "bob") and sky.cuts == 2
        async with hands.client(house.url) as asker:
            assert (await hands.do(asker.run(run.id).result, 20)).text == "paid"
    assert len(house.shop.paid) == 1


async def test_without_repetition_it_is_said_that_it_may_have_happened(house: House, hands: Hands) -> None:
    async with weather(house.place, first(1, b"POST ")) as sky, hands.client(sky.url, retry=ONCE) as client:
        with pytest.raises(Unreachable) as caught:
            await hands.do(client.submit, "greet", idempotency_key="mine")
        assert (caught.value.code, caught.value.maybe_done) == ("client.broken", True)
        again = await hands.do(client.submit, "greet", idempotency_key="mine")
        assert again.existing and len(house.runtime.runs()) == 1


async def test_a_server_that_says_nothing_is_not_waited_for_without_end(hands: Hands) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(deaf) as url, hands.client(url, timeout_s=0.05, silence_s=0.05, retry=ONCE) as client:
        for verb in (client.health, client.run("r").events, client.run("r").show):
            with pytest.raises(Unreachable) as caught:
                await hands.do(verb)
            assert caught.value.code == "client.timeout"


async def test_an_answer_that_trickles_is_not_read_to_its_end(
    house: House, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands.client(house.url, timeout_s=30, retry=ONCE) as client:
        assert (await hands.do(client.health)).status == "ok"
        monkeypatch.setattr("quarterdeck.client.moment.monotonic_s", count(0.0, 100.0).__next__)
        with pytest.raises(Unreachable) as caught:
            await hands.do(client.health)
        assert caught.value.code == "client.timeout"


async def test_a_silent_stream_is_opened_again(house: House, hands: Hands) -> None:
    async with weather(house.place, lambda _: None) as sky, hands.client(sky.url, silence_s=0.05) as client:
        run = await hands.do(client.submit, "slow")
        following = asyncio.ensure_future(hands.all(run.follow))
        await until(lambda: len(sky.seen) >= 4)
        house.shop.gate.set()
        seqs = [event.seq for event in await following if event.durable]
        assert seqs == list(range(1, house.runtime.show(run.id).row.seq + 1))


async def test_a_door_that_closes_is_gone_round(tmp_path: Path, hands: Hands) -> None:
    async with open_house(tmp_path, Settings(heartbeat_s=0.02)) as house, hands.client(house.url) as client:
        run = await hands.do(client.submit, "slow")
        following = asyncio.ensure_future(hands.all(run.follow))
        await until(lambda: house.door.stage.streams.open == 1)
        house.door.closing.set()
        await until(lambda: house.door.stage.streams.open == 0)
        house.door.closing.clear()
        house.shop.gate.set()
        assert [event.seq for event in await following if event.durable] == list(range(1, house.runtime.show(run.id).row.seq + 1))


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n" + b"x" * 70_000, "client.answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", "client.answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "client.answer"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "client.status"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}", "client.broken"),
        (b"nonsense\r\n\r\n", "client.broken"),
        (b"", "client.broken"),
    ],
)
async def test_whatever_answers_is_an_error_with_a_code(
    hands: Hands, head: bytes, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quarterdeck.client.transport.MAX_ANSWER_BYTES", 65_536)

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)

    async with served(odd) as url, hands.client(url, retry=ONCE) as client:
        with pytest.raises(ClientError) as caught:
            await hands.do(client.health)
        assert caught.value.code == code


async def test_the_weather_cuts_where_it_is_told(house: House) -> None:
    async with weather(house.place, lambda _: 10) as sky:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sky.url.rpartition(":")[2]))
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        try:
            got = await reader.read()
        except ConnectionError:
            got = b""
        assert isinstance(sky, Weather) and got in (b"HTTP/1.1 2", b"") and sky.cuts == 1
        writer.transport.abort()
