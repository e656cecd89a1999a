"""A folder with a deck and a PostgreSQL store, and the command line in it: the stage of the tests of workers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

import quarterdeck

DECK = textwrap.dedent('''
    import asyncio
    import os
    from pathlib import Path

    from quarterdeck import Context, Quarterdeck, ToolContext
    from quarterdeck.testing import ScriptedModel

    deck = Quarterdeck("yard")
    here = Path(__file__).parent


    def write(word, ctx):
        descriptor = os.open(here / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{word} {ctx.idempotency_key}\\n".encode())
        os.close(descriptor)


    @deck.tool(effect="write", idempotent=True)
    async def load(box: int, ctx: ToolContext) -> int:
        """Load a box."""
        write("load", ctx)
        return box


    @deck.tool(effect="external")
    async def hoist(ctx: ToolContext) -> str:
        """Takes until a file says that it may end; it cannot be repeated."""
        write("hoist", ctx)
        while not (here / "lowered").exists():
            await asyncio.sleep(0.01)
        write("hoisted", ctx)
        return "up"


    @deck.tool(effect="write", idempotent=True)
    async def sit(ctx: ToolContext) -> str:
        """Never ends."""
        write("sit", ctx)
        await asyncio.Event().wait()


    @deck.outbox("told", timeout=30.0)
    async def hear(message):
        """Takes until a file says that it may end."""
        descriptor = os.open(here / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"hear {message.message}\\n".encode())
        while not (here / "lowered").exists():
            await asyncio.sleep(0.01)
        os.write(descriptor, f"heard {message.message}\\n".encode())
        os.close(descriptor)


    @deck.tool(effect="external", transactional=True)
    async def tell(ctx: ToolContext) -> str:
        """Tell others."""
        ctx.publish("told", "news", key="k")
        return "told"


    @deck.workflow("lifting")
    async def lifting(ctx: Context) -> str:
        """One effect that cannot be repeated, and one that can."""
        await ctx.tool(hoist)
        return str(await ctx.tool(load, box=1))


    def loading(messages):
        done = sum(1 for message in messages if message.role == "tool")
        return "loaded" if done >= 4 else [("load", {"box": done})]


    deck.agent("loading", model=ScriptedModel(loading), tools=[load])
    deck.agent("hoisting", model=ScriptedModel([[("hoist", {})], [("load", {"box": 1})], "done"]), tools=[hoist, load])
    deck.agent("telling", model=ScriptedModel([[("tell", {})], "told"]), tools=[tell])
    asking = ScriptedModel([[("load", {"box": 1})], "loaded"])
    deck.agent("asking", model=asking, tools=[load], autonomy="executes_after_approval")
    deck.agent("sitting", model=ScriptedModel([[("sit", {})], "never"]), tools=[sit])
''')


def uri(dsn: str) -> str:
    """A connection string of the test server as people write it."""
    named = conninfo_to_dict(dsn)
    return f"postgresql://{named['user']}@/{named['dbname']}?host={quote(str(named['host']), safe='')}&port={named.get('port', 5432)}"


class Yard:
    """A folder, a database, and processes of the command line."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.store = uri(dsn)
        self.ledger = folder / "ledger"
        self.ledger.touch()
        (folder / "yard.py").write_text(DECK)
        source = str(Path(quarterdeck.__file__).parents[1])
        extra = {"PYTHONPATH": source, "QUARTERDECK_STORE": self.store, "QUARTERDECK_APP": "yard:deck"}
        self.env = {**os.environ, **extra}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command; its output is read by whoever wants it, its log is in ``log``."""
        with (self.folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "quarterdeck.cli", *arguments),
                cwd=self.folder,
                env=self.env,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def worker(self, *arguments: str) -> asyncio.subprocess.Process:
        """A worker that is ready."""
        process = await self.start("worker", "--json", *arguments)
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, self.log()
        return process

    async def said(self, *arguments: str) -> dict[str, object]:
        """What a command answers as JSON; it has to succeed."""
        process = await self.start(*arguments, "--json")
        out, _ = await process.communicate()
        assert process.returncode == 0, self.log()
        found: dict[str, object] = json.loads(out)
        return found

    def log(self) -> str:
        """Everything that was logged so far."""
        return (self.folder / "log").read_text()

    def lines(self, word: str) -> list[str]:
        """The keys under which a tool has done something."""
        return [line.split()[1] for line in self.ledger.read_text().splitlines() if line.startswith(f"{word} ")]
