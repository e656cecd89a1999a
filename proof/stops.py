"""O02, O03: what a worker of the command line does on SIGTERM at each moment, and what its probes say of a database that is in trouble.

- `sigterm-matrix`: a signal while it starts, idles, is between steps, in an effect that ends in the grace, in one that does not, while a
  message is delivered, while the database refuses everybody, and while it hangs. Each time the process ends within its grace and a few
  seconds, an effect that could end has ended, and what was held is given back if there is a database to give it back to.
- `probes`: the database refuses, hangs, or its disk is full. Liveness is answered all the time, readiness is not given, and is given again
  when the database is well.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from proof.fleet import ROOT, Found, comes, suite_of
from quarterdeck.cli.working import LAST_S
from quarterdeck.testing.postgres import Server

DECK = '''
import asyncio
import os
from pathlib import Path

from proof.stops import planted
from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.testing import ScriptedModel

here = Path(__file__).parent
deck = Quarterdeck("post")


def write(line):
    descriptor = os.open(here / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (line + "\\n").encode())
    os.close(descriptor)


async def lift(ctx):
    write(f"begun {ctx.run_id}")
    while not (here / "free").exists():
        await asyncio.sleep(0.02)
    write(f"ended {ctx.run_id}")


@deck.tool(effect="external")
async def hoist(ctx: ToolContext) -> str:
    """Takes until it may end."""
    await lift(ctx)
    return "up"


@deck.tool(effect="write", idempotent=True)
async def load(step: int, ctx: ToolContext) -> int:
    """Takes a moment."""
    write(f"load {ctx.run_id}")
    await asyncio.sleep(0.05)
    return step


@deck.outbox("told", timeout=60.0)
async def hear(message):
    await lift(message)


@deck.tool(effect="external", transactional=True)
async def tell(ctx: ToolContext) -> str:
    """Tell others."""
    ctx.publish("told", "news", key="k")
    return "told"


deck.agent("hoist", model=ScriptedModel([[("hoist", {})], "done"]), tools=[hoist])
deck.agent("load", model=ScriptedModel([*[[("load", {"step": step})] for step in range(200)], "done"]), tools=[load])
deck.agent("tell", model=ScriptedModel([[("tell", {})], "told"]), tools=[tell])
planted(os.environ.get("PLANTED", ""))
'''
WAITED: dict[str, tuple[str, str]] = {
    "between steps": ("load", "load"),
    "in an effect": ("hoist", "begun"),
    "in an effect that does not end": ("hoist", "begun"),
    "in a delivery": ("tell", "begun"),
    "the database refuses": ("hoist", "begun"),
    "the database hangs": ("hoist", "begun"),
}
"""At each moment: what was asked for, and the word that it has written then."""
MOMENTS = ("starting", "idle", *WAITED)
GRACE_S = 3.0
PROBED_S = 5.0
"""How long a probe may take."""
CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
FULL = """
CREATE FUNCTION quarterdeck.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'no space left on device'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON quarterdeck.events EXECUTE FUNCTION quarterdeck.full_disk()
"""


def planted(bug: str) -> None:
    """Plant a bug into this process for good; empty: none."""
    from quarterdeck.app.runtime import Runtime
    from quarterdeck.cli import working
    from quarterdeck.dispatch.embedded import EmbeddedDispatcher
    from quarterdeck.store.postgres import journal, lease, store
    from quarterdeck.store.postgres.journal import PostgresJournal

    async def nothing(*_: object) -> None:
        return None

    changes: dict[str, tuple[tuple[object, str, object], ...]] = {
        "": (),
        "a stop does not wait": ((EmbeddedDispatcher, "_rested", nothing),),
        "nothing is given back": ((PostgresJournal, "_leave", nothing), (EmbeddedDispatcher, "_give_back", nothing)),
        "a stop waits for the database": ((journal, "CLOSE_S", 600.0), (lease, "END_S", 600.0), (working, "LAST_S", 600.0)),
        "reads wait for ever": ((store, "PATIENCE_S", 600.0),),
        "readiness does not know of the store": ((Runtime, "unreachable", False),),
    }
    for owner, name, value in changes[bug]:
        if not hasattr(owner, name):
            raise LookupError(f"there is no {name} to change")
        setattr(owner, name, value)


class Post:
    """A folder with a deck, a server and a database, and one worker there."""

    def __init__(self, server: Server, folder: Path, bug: str) -> None:
        self.server = server
        self.dsn = server.database()
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        (folder / "post.py").write_text(DECK)
        named = conninfo_to_dict(self.dsn)
        store = f"postgresql://{named['user']}@/{named['dbname']}?host={quote(str(named['host']), safe='')}&port={named['port']}"
        path = os.pathsep.join([str(ROOT), *[entry for entry in sys.path if entry]])
        ours = {"PYTHONPATH": path, "QUARTERDECK_STORE": store, "QUARTERDECK_APP": "post:deck", "PLANTED": bug}
        self._env = {**os.environ, **ours}
        self._started: list[asyncio.subprocess.Process] = []

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """Start a command."""
        pipe = asyncio.subprocess.PIPE
        with (self.folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "quarterdeck.cli", *words), cwd=self.folder, env=self._env, stdout=pipe, stderr=log
            )
        self._started.append(process)
        return process

    async def ready(self) -> tuple[asyncio.subprocess.Process, int]:
        """A worker that is ready, and the port of its probes."""
        worker = await self.start("worker", "--json", "--grace", str(GRACE_S), "--health-port", "0")
        line = await worker.stdout.readline() if worker.stdout is not None else b""
        if not line:
            raise RuntimeError((self.folder / "log").read_text()[-2_000:])
        return worker, int(json.loads(line)["health_port"])

    async def asked(self, intent: str, word: str) -> None:
        """Have a run asked for, and wait until it has written this."""
        asking = await self.start("run", intent, "--json")
        await comes(lambda: self.said(word) > 0, 60.0)
        asking.kill()
        await asking.communicate()

    def said(self, word: str) -> int:
        """How often this was written."""
        return self.ledger.read_text().split().count(word)

    def held(self) -> int:
        """Runs that somebody holds."""
        return int(str(self.server.execute("SELECT count(*) FROM quarterdeck.runs WHERE worker IS NOT NULL", self.dsn)[0][0]))

    def refuse(self, *, on: bool = True) -> None:
        """Let the database refuse everybody, or nobody."""
        name = conninfo_to_dict(self.dsn)["dbname"]
        self.server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'false' if on else 'true'}")
        if on:
            self.server.execute(CUT_OFF.format(name))

    def hang(self, *, on: bool = True) -> None:
        """Stop every process of the server, or let them go on."""
        folder = Path(str(conninfo_to_dict(self.server.dsn)["host"]))
        first = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in (first, *[int(child) for child in children]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if on else signal.SIGCONT)

    def fill(self, *, on: bool = True) -> None:
        """Let the server find its disk full, or not."""
        self.server.execute(FULL if on else "DROP FUNCTION quarterdeck.full_disk CASCADE", self.dsn)

    async def end(self) -> None:
        """Nothing is left."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@asynccontextmanager
async def posted(bug: str) -> AsyncIterator[Post]:
    """A server of its own, and a folder."""
    server = await asyncio.to_thread(Server.start)
    with tempfile.TemporaryDirectory(prefix="qdproof-") as folder:
        post = Post(server, Path(folder), bug)
        try:
            yield post
        finally:
            post.hang(on=False)
            await post.end()
            await asyncio.to_thread(server.stop)


async def signalled(moment: str, bug: str = "") -> Found:
    """SIGTERM at one moment."""
    async with posted(bug) as post:
        if moment == "starting":
            worker = await post.start("worker", "--json", "--grace", str(GRACE_S))
            await comes(lambda: "start: configuration" in (post.folder / "log").read_text(), 60.0)
        else:
            worker, _ = await post.ready()
        if moment in WAITED:
            await post.asked(*WAITED[moment])
        if "database" in moment:
            await asyncio.to_thread(post.refuse if "refuses" in moment else post.hang)
        began_s = time.monotonic()
        worker.terminate()
        ends = moment in ("in an effect", "in a delivery")
        if ends:
            await comes(lambda: "stopping: nothing" in (post.folder / "log").read_text(), 30.0)
            (post.folder / "free").touch()
        found: list[str] = []
        try:
            async with asyncio.timeout(GRACE_S + LAST_S + 5.0):
                status = await worker.wait()
        except TimeoutError:
            found.append(f"{moment}: it has not ended")
        else:
            found += [f"{moment}: it ended with status {status}"] if status and "database" not in moment else []
        took_s = time.monotonic() - began_s
        if "hangs" in moment:
            post.hang(on=False)
        elif "database" in moment:
            post.refuse(on=False)
        else:
            left = await asyncio.to_thread(post.held)
            found += [f"{moment}: {left} runs are still held"] if left else []
        if ends and post.said("ended") != 1:
            found.append(f"{moment}: what could end was cut off")
        return found, {"moment": moment, "took_s": round(took_s, 2), "status": worker.returncode}


def _probe(port: int, what: str) -> tuple[int, float]:
    """Status (0: no answer in time), and how long it took."""
    began_s = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/{what}", timeout=PROBED_S) as answer:
            status = int(answer.status)
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError:
        status = 0
    return status, time.monotonic() - began_s


async def probed(trouble: str, bug: str = "") -> Found:
    """The database is in trouble for a while, with a run in hand; then it is not."""
    async with posted(bug) as post:
        _, port = await post.ready()
        await post.asked("load", "load")
        make: Callable[..., None] = {"refuses": post.refuse, "hangs": post.hang, "is full": post.fill}[trouble]
        lively: list[float] = []
        found: list[str] = []

        def is_ready(wanted: int) -> bool:
            status, took_s = _probe(port, "live")
            lively.append(took_s if status == 200 else PROBED_S)
            return _probe(port, "ready")[0] == wanted

        found += [] if await comes(partial(is_ready, 200), 10.0) else ["it was never ready"]
        await asyncio.to_thread(make)
        began_s = time.monotonic()
        found += [] if await comes(partial(is_ready, 503), 20.0) else [f"the database {trouble}, and it is ready"]
        dropped_s = time.monotonic() - began_s
        await comes(lambda: not is_ready(503) and len(lively) > 1_000, 5.0)
        await asyncio.to_thread(make, on=False)
        began_s = time.monotonic()
        found += [] if await comes(partial(is_ready, 200), 60.0) else [f"the database {trouble} no more, and it is not ready"]
        dead = sum(took_s >= PROBED_S for took_s in lively)
        found += [f"{dead} of {len(lively)} probes of liveness were not answered"] if dead else []
        figures: dict[str, object] = {"trouble": trouble, "dropped_s": round(dropped_s, 2), "live_max_s": round(max(lively), 2)}
        return found, {**figures, "back_s": round(time.monotonic() - began_s, 2), "probes": len(lively)}


TROUBLES = ("refuses", "hangs", "is full")

SUITES = (
    suite_of(
        "sigterm-matrix",
        lambda quick: [partial(signalled, moment) for moment in MOMENTS for _ in range(1 if quick else 10)],
        {
            "a stop does not wait": lambda: signalled("in an effect", "a stop does not wait"),
            "nothing is given back": lambda: signalled("in an effect that does not end", "nothing is given back"),
            "a stop waits for the database": lambda: signalled("the database hangs", "a stop waits for the database"),
        },
    ),
    suite_of(
        "probes",
        lambda quick: [partial(probed, trouble) for trouble in TROUBLES for _ in range(1 if quick else 5)],
        {
            "reads wait for ever": lambda: probed("hangs", "reads wait for ever"),
            "readiness does not know of the store": lambda: probed("is full", "readiness does not know of the store"),
        },
    ),
)
"""What `python -m proof` runs."""
