"""What a worker and a door are refused with before they take anything, in the order in which they look: configuration, store, models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarterdeck.testing.postgres import SETTING, Server, binaries
from tests.fleet.yard import Yard, uri

HOUSE = 'deck.model("house", OpenAI("gpt-4o-mini"))\ndeck.agent("asks", model="house")'
SECRET = '''
from quarterdeck import ToolContext
@deck.tool(effect="read", secrets=["MISSING_TOKEN"])
def peek(ctx: ToolContext) -> str:
    """Look."""
    return ""
'''
FLAWS = {
    "deck.invalid: names the model": 'deck.agent("asks", model="nobody")',
    "deck.invalid: MISSING_TOKEN": SECRET,
    "model.unavailable: OPENAI_API_KEY": HOUSE,
    "policy.invalid: ": 'deck.policy("permit(principal, action")',
}


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server whose settings are ours to spoil."""
    if binaries() is None:
        pytest.skip(f"no PostgreSQL binaries for this platform; {SETTING} names a server that is not ours to spoil")
    server = Server.start()
    yield server
    server.stop()


async def refused(yard: Yard, store: str, *words: str) -> tuple[int | None, str]:
    """The exit status of a command that has to be refused, and what it says."""
    before = len(yard.log()) if (yard.folder / "log").exists() else 0
    async with asyncio.timeout(60):
        process = await yard.start(*words, "--store", store)
        await process.communicate()
    return process.returncode, yard.log()[before:].partition("error ")[2]


DOORS = (("worker",), ("serve", "--port", "0", "--insecure-loopback"))


@pytest.mark.parametrize("flaw", FLAWS)
async def test_what_is_wrong_with_a_deck_is_said_before_a_run_is_taken(flaw: str, tmp_path: Path, database: str) -> None:
    yard = Yard(tmp_path, database)
    text = (tmp_path / "yard.py").read_text()
    (tmp_path / "yard.py").write_text(f"{text}\nfrom quarterdeck import OpenAI\n{FLAWS[flaw]}\n")
    code, _, word = flaw.partition(": ")
    for door in DOORS:
        status, said = await refused(yard, yard.store, *door)
        assert status == 2 and code in said and word in said, said


async def test_a_door_that_drives_nothing_needs_no_key(tmp_path: Path, database: str) -> None:
    yard = Yard(tmp_path, database)
    text = (tmp_path / "yard.py").read_text()
    (tmp_path / "yard.py").write_text(f"{text}\nfrom quarterdeck import OpenAI\n{HOUSE}\n")
    door = await yard.start("serve", "--port", "0", "--insecure-loopback", "--no-work", "--json")
    assert door.stdout is not None
    assert await door.stdout.readline(), yard.log()
    door.terminate()
    await door.communicate()
    assert door.returncode == 0


async def test_a_store_that_cannot_be_used_is_said(tmp_path: Path, own: Server) -> None:
    yard = Yard(tmp_path, own.database())

    async def codes(store: str = "") -> set[tuple[int | None, str]]:
        found = [await refused(yard, store or yard.store, *door) for door in DOORS]
        return {(status, said.partition("store.")[2].partition(":")[0]) for status, said in found}

    assert await codes("postgresql://host/x?colour=red") == {(2, "dsn")}
    assert await codes("postgresql://nobody@127.0.0.1:1/x") == {(4, "unreachable")}
    folder = Path(uri(own.dsn).partition("host=")[2].partition("&")[0].replace("%2F", "/"))
    rules = folder / "data" / "pg_hba.conf"
    trusting = rules.read_text()
    rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    own.execute("SELECT pg_reload_conf()")
    own.execute(f"ALTER ROLE {Server.role} PASSWORD 'right'")
    assert await codes(yard.store.replace("@/", ":wrong@/")) == {(4, "unreachable")}
    assert "password" in yard.log() and "wrong@" not in yard.log()
    rules.write_text(trusting)
    own._settings = ("fsync=off",)
    await asyncio.to_thread(own.restart)
    assert await codes() == {(2, "unsafe")}
    own._settings = ()
    await asyncio.to_thread(own.restart, standby=True)
    assert await codes() == {(4, "replica")}
