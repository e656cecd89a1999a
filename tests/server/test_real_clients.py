"""Clients that others have written read what the door says."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from tests.server.stage import House

GREET = {"intent": "greet", "payload": "you"}


async def test_the_parser_of_the_openai_library_reads_a_run_as_it_happens(house: House) -> None:
    from openai._streaming import SSEDecoder

    async with (
        house.client() as client,
        client.stream("POST", "/v1/runs", json=GREET, headers={"accept": "text/event-stream"}) as answer,
    ):
        read = [event async for event in SSEDecoder().aiter_bytes(answer.aiter_bytes())]
    durable = [event for event in read if event.id]
    kinds = [(event.event, json.loads(event.data)["seq"]) for event in read if event.event != "model.delta"]
    journal = house.runtime.handle(json.loads(durable[0].data)["body"]["contract"]["run_id"]).events()
    assert kinds == [(event.kind, event.seq) for event in journal]
    assert kinds[-1][0] == "run.finished"
    assert "hello you" in "".join(json.loads(event.data)["text"] for event in read if event.event == "model.delta")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_asks_for_a_run_and_gets_its_result(house: House) -> None:
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", f"{house.url}/v1/runs", "-H", "Authorization: Bearer ann"]
    command += ["-H", "Content-Type: application/json", "-H", "Prefer: wait=20", "-d", json.dumps(GREET)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(said)["result"]["text"] == "hello you"
