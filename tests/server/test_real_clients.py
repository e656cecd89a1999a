"""Clients that others have written read what the door says."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import shutil
import sys
from collections.abc import Iterator

import httpx
import pytest
from httpx_sse import aconnect_sse
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

from quarterdeck.server.openapi import document
from quarterdeck.server.table import TABLE
from tests.server.stage import House, decided

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


async def test_httpx_sse_reads_a_run_and_goes_on_after_the_id_that_it_saw(house: House) -> None:
    run = await house.runtime.submit("busy", tenant="acme")
    result = await run.result(20)
    assert result.ok
    seen: list[int] = []
    async with httpx.AsyncClient(base_url=house.url, trust_env=False, headers={"authorization": "Bearer ann"}) as client:
        while True:
            last = {"last-event-id": str(seen[-1])} if seen else {}
            async with aconnect_sse(client, "GET", f"/v1/runs/{run.id}/events", headers=last) as source:
                if source.response.status_code == 204:
                    break
                async for event in source.aiter_sse():
                    assert json.loads(event.data)["kind"] == event.event
                    seen.append(int(event.id))
                    if len(seen) % 7 == 0:
                        break  # the connection is gone
    assert seen == list(range(1, house.runtime.show(run.id).row.seq + 1))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a package that openapi-python-client has made of the document."""
    folder = tmp_path_factory.mktemp("generated")
    source = folder / "openapi.json"
    source.write_bytes(document())
    settings = ConfigFile(post_hooks=[])
    config = Config.from_sources(settings, MetaType.NONE, source, "utf-8", False, output_path=folder / "made_of_openapi")
    assert generate(config=config) == [], "the generator understands everything"
    sys.path.insert(0, str(folder))
    yield "made_of_openapi"
    sys.path.remove(str(folder))


def test_a_generated_client_has_every_operation_and_compiles(generated: str) -> None:
    package = importlib.import_module(generated)
    found = [name for _, name, _ in pkgutil.walk_packages(package.__path__, f"{generated}.")]
    for name in found:
        importlib.import_module(name)
    made = {name.rpartition(".")[2].replace("_", "") for name in found if ".api." in name}
    assert {row.name.lower() for row in TABLE} <= made


async def test_a_generated_client_asks_for_runs_decides_and_reads_refusals(house: House, generated: str) -> None:
    def api(name: str):
        return importlib.import_module(f"{generated}.api.default.{name}")

    models, kit = importlib.import_module(f"{generated}.models"), importlib.import_module(generated)

    def client(name: str):
        return kit.AuthenticatedClient(house.url, name, httpx_args={"trust_env": False})

    async with client("ann") as ann, client("bob") as bob:
        asked = models.Envelope(intent="greet", payload="you", caller=models.Caller(tenant="acme", user="ann"))
        run = await api("submit_run").asyncio(client=ann, body=asked, prefer="wait=20")
        assert (run.status, run.result.text, run.tenant) == ("succeeded", "hello you", "acme")
        page = await api("list_runs").asyncio(client=ann, limit=5, status=models.Status.SUCCEEDED)
        assert [row.run_id for row in page.runs] == [run.run_id]
        missing = await api("get_run").asyncio_detailed("nothing", client=ann)
        assert (missing.status_code, missing.parsed.code) == (404, "run.unknown")
        waiting = await api("submit_run").asyncio(client=ann, body=models.Envelope(intent="support"), prefer="respond-async")
        approval = await decided(house, waiting.run_id)
        yes = models.Decide(decision=models.DecideDecision.APPROVE, reason="known")
        told = await api("decide_approval").asyncio(
            str(approval["approval"]), client=bob, body=yes, if_match=f'"{approval["digest"]}"'
        )
        assert (told.status, told.decided_by) == ("approved", "bob")
        assert (await house.runtime.handle(waiting.run_id).result(20)).text == "paid"
        refused = await api("list_tools").asyncio(client=ann)
        assert (refused.status, refused.code) == (403, "auth.forbidden")
