"""A process that runs agents and dies on command: the victim of the crash suites.

`python -m proof.victim` reads one job per line and forks a child for each. The child runs the same small deck on the job's files and,
at the failpoint that the job names, kills itself, its writer, or both, with SIGKILL. Failpoints are planted around the product, never
in it: before a commit is submitted, when it has been sent, and when its answer has arrived; before, within and after a tool's act;
before and after a model's answer; around a reconcile function. A failpoint is named ``moment:what`` and counted, so that a dry run
lists all of them and every one can be struck.

What a tool really did stands in a ledger of its own, one synced line per effect, written at the moment of the act: the provider's
side, which no crash of ours can change.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from proof.plants import PLANTS
from quarterdeck import Budget, Quarterdeck, ToolContext
from quarterdeck.app.runtime import Runtime
from quarterdeck.core import events as ev
from quarterdeck.core.commit import Commit, Op, Outcome
from quarterdeck.core.errors import QuarterdeckError, UsageError
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.model import Message, ModelReply, ModelRequest, Price
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.scripted import ScriptedModel

PRICE = Price(1_000_000, 2_000_000, "2026-01-01")


class Job(msgspec.Struct, frozen=True):
    """What one child does: runs ``orders`` on ``folder``, dies at the ``occurrence``-th time that ``point`` is passed.

    ``strikes`` says who dies: ``owner``, ``writer`` or ``both``. Without a point nobody does. ``heals``: no order is submitted, what
    the folder holds is brought to rest, a person answering approvals and looking after unknown effects.
    """

    folder: str
    orders: int = 2
    point: str = ""
    occurrence: int = 1
    strikes: str = "owner"
    heals: bool = False
    plant: str = ""


class Ended(msgspec.Struct, frozen=True):
    """How a child ended: the signal that killed it, or its exit code."""

    signal: int = 0
    code: int = 0


class Act(msgspec.Struct, frozen=True):
    """One effect, as the provider's ledger holds it; or one asking, before anything happened."""

    tool: str
    key: str
    run: str
    call: str


class Files:
    """The files of one trial, beside the store: what was accepted, what was asked of tools, what they did, which points were passed."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.store = self.folder / "store.db"
        self.accepted = self.folder / "accepted"
        self.asked = self.folder / "asked"
        self.done = self.folder / "done"
        self.passed = self.folder / "passed"
        self.trouble = self.folder / "trouble"

    def acts(self, path: Path) -> list[Act]:
        """The lines of one of the ledgers; a line that a crash cut off was never acknowledged, and would show as an error here."""
        if not path.exists():
            return []
        return [msgspec.json.decode(line, type=Act) for line in path.read_bytes().splitlines()]


def synced(path: Path, line: bytes) -> None:
    """Add one line, durably, in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Failpoints:
    """Counts the points that are passed; at the chosen one, kills."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.passed: Counter[str] = Counter()
        self.writer_pid: Callable[[], int] = lambda: 0
        self._struck = False

    def hit(self, point: str) -> None:
        """This point is passed now; perhaps nobody gets further."""
        self.passed[point] += 1
        job = self._job
        if self._struck or point != job.point or self.passed[point] != job.occurrence:
            return
        self._struck = True
        synced(Files(job.folder).passed, msgspec.json.encode({"struck": point, "who": job.strikes}))
        if job.strikes in ("writer", "both") and self.writer_pid():
            os.kill(self.writer_pid(), signal.SIGKILL)
        if job.strikes in ("owner", "both"):
            os.kill(os.getpid(), signal.SIGKILL)


def what(op: Op) -> str:
    """An operation's name among the failpoints: the kinds of its events, or its own."""
    if isinstance(op, Commit):
        kinds = [ev.kind_of(event).partition(".") for event in map(ev.decode, [item.body for item in op.records])]
        return "+".join(dict.fromkeys(f"{noun}.{verb}" for noun, _, verb in kinds if noun != "gate"))
    return type(op).__name__.lower()


class WatchedJournal:
    """A journal with failpoints around every submission."""

    def __init__(self, inner: SqliteJournal, points: Failpoints) -> None:
        self._inner = inner
        self._points = points
        self.incarnation = inner.incarnation
        self.quiesced = inner.quiesced
        self.failing = False

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        name, points = what(op), self._points
        points.hit(f"before:{name}")
        answer = self._inner.submit(op)
        answer.add_done_callback(lambda _: points.hit(f"after:{name}"))
        loop = asyncio.get_running_loop()
        # The journal sends at the end of this tick; one more turn of the loop and the group is on its way, unanswered.
        loop.call_soon(lambda: loop.call_soon(points.hit, f"sent:{name}"))
        return answer

    def hints(self, callback: Callable[[], None]) -> None:
        self._inner.hints(callback)

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        self._inner.introduce(about, programs)

    async def close(self) -> None:
        await self._inner.close()


class Desk:
    """The providers behind the tools, with failpoints around each act."""

    def __init__(self, files: Files, points: Failpoints) -> None:
        self._files = files
        self._points = points

    async def act(self, tool: str, ctx: ToolContext, *, honours_keys: bool = False) -> str:
        """Perform one effect, durably; a provider that honours keys does it once per key."""
        act = msgspec.json.encode(Act(tool, ctx.idempotency_key, ctx.run_id, ctx.call))
        points = self._points
        points.hit(f"tool.before:{tool}")
        synced(self._files.asked, act)
        if honours_keys and self.find(tool, ctx) is not None:
            return "done before"
        await asyncio.sleep(0)
        points.hit(f"tool.at:{tool}")
        synced(self._files.done, act)
        points.hit(f"tool.within:{tool}")
        await asyncio.sleep(0)
        points.hit(f"tool.after:{tool}")
        return "done"

    def find(self, tool: str, ctx: ToolContext) -> str | None:
        """What the provider says when it is asked afterwards."""
        self._points.hit(f"ask:{tool}")
        known = any(act.tool == tool and act.key == ctx.idempotency_key for act in self._files.acts(self._files.done))
        self._points.hit(f"asked:{tool}")
        return "found" if known else None


class WatchedModel(ScriptedModel):
    """A script with failpoints around each answer."""

    def __init__(self, points: Failpoints, script: Callable[[tuple[Message, ...]], object]) -> None:
        super().__init__(script, price=PRICE)  # type: ignore[arg-type]
        self._points = points

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        self._points.hit(f"model.before:{request.turn}")
        reply = await super().propose(request, emit)
        await asyncio.sleep(0)
        self._points.hit(f"model.after:{request.turn}")
        return reply


CLERK: tuple[object, ...] = (
    [("lookup", {"item": 1})],
    [("note", {"item": 1})],
    [("lookup", {"item": 2}), ("note", {"item": 2}), ("pay", {"item": 2}), ("mail", {"item": 2})],
    [("mail", {"item": 3})],
    "done",
)
CAREFUL: tuple[object, ...] = ([("lookup", {"item": 4})], [("pay", {"item": 4}), ("mail", {"item": 4})], "done")
SCRIPTS = {"clerk": CLERK, "careful": CAREFUL}


def by_transcript(script: tuple[object, ...]) -> Callable[[tuple[Message, ...]], object]:
    """Which turn is played follows from the messages, so what a model must be shown is part of the test: an answer that is missing
    from the transcript stops the script."""

    def turn(messages: tuple[Message, ...]) -> object:
        said = [message for message in messages if message.role == "assistant"]
        answered = {message.call_id for message in messages if message.role == "tool"}
        missing = [call.call_id for message in said for call in message.calls if call.call_id not in answered]
        if missing:
            raise AssertionError(f"the model is not shown what became of {missing}")
        return script[len(said)]

    return turn


def deck_of(files: Files, points: Failpoints) -> Quarterdeck:
    """Two agents over four tools, one of each effect class; one of them asks before it acts."""
    deck, desk = Quarterdeck("victim"), Desk(files, points)

    @deck.tool(effect="read", cost="0.001")
    async def lookup(item: int) -> str:
        points.hit("tool.before:lookup")
        await asyncio.sleep(0)
        return f"item {item}"

    @deck.tool(effect="write", idempotent=True, cost="0.002")
    async def note(item: int, ctx: ToolContext) -> str:
        return await desk.act("note", ctx, honours_keys=True)

    def paid(ctx: ToolContext) -> str | None:
        return desk.find("pay", ctx)

    @deck.tool(effect="irreversible", reconcile=paid, cost="0.003")
    async def pay(item: int, ctx: ToolContext) -> str:
        return await desk.act("pay", ctx)

    @deck.tool(effect="external", cost="0.004")
    async def mail(item: int, ctx: ToolContext) -> str:
        return await desk.act("mail", ctx)

    tools = [lookup, note, pay, mail]
    wide = Budget(turns=30, tools=30, usd="5")
    for name, script in SCRIPTS.items():
        deck.model(name, WatchedModel(points, by_transcript(script)))
        deck.agent(name, model=name, instructions="Work.", tools=tools, budget=wide)
    deck.route("clerk", "clerk")
    deck.route("careful", "careful", autonomy="executes_after_approval")
    deck.budget("all", Budget(tools=5_000, tokens=10_000_000, usd="900", model_calls=5_000))
    deck.budget("tenant:*", Budget(tools=400, usd="90"))
    deck.budget("route:clerk", Budget(tokens=1_000_000))
    return deck


async def live(job: Job) -> None:
    """Be the process: submit what was ordered, bring everything to rest, as far as one gets."""
    files, points = Files(job.folder), Failpoints(job)

    async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
        journal = await SqliteJournal.open(files.store, int.from_bytes(entropy.token(6), "big"))
        points.writer_pid = lambda: journal.writer_pid
        points.hit("opened:store")
        return WatchedJournal(journal, points), SqliteInsights(files.store)

    async with deck_of(files, points).start(open_store=open_store) as runtime:  # type: ignore[arg-type]
        for number in range(0 if job.heals else job.orders):
            for route in SCRIPTS:
                handle = await runtime.submit(route, {"n": number}, user="ada", idempotency_key=f"{route}-{number}")
                synced(files.accepted, handle.id.encode())
        await person(runtime, files)
    if not job.point:
        synced(files.passed, msgspec.json.encode({"passed": points.passed}))


async def person(runtime: Runtime, files: Files) -> None:
    """Somebody who approves, and who looks at the provider's side where the runtime does not know; until every run has ended."""
    while waiting := [row for row in runtime.runs(limit=500) if row.status not in TERMINAL]:
        rested = [asyncio.ensure_future(runtime.resting(row.run_id)) for row in waiting]
        for row in runtime.approvals():
            await runtime.approve(row.approval, by="boss")
        for row in waiting:
            for doubtful in [name.removeprefix("effect:") for name in row.waiting_on if name.startswith("effect:")]:
                done = any(act.run == row.run_id and act.call == doubtful for act in files.acts(files.done))
                try:
                    await runtime.resolve(row.run_id, doubtful, done=done, by="ada", result="looked")
                except UsageError as error:
                    if not error.code.startswith("effect.not_"):  # an earlier answer was quicker than this person's list
                        raise
        await asyncio.wait(rested, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)


def child(job: Job) -> int:
    """The body of one fork."""
    with ExitStack() as stack:
        if job.plant:
            stack.enter_context(PLANTS[job.plant].planted())
        try:
            asyncio.run(asyncio.wait_for(live(job), 20.0))
        except (QuarterdeckError, TimeoutError) as error:
            Files(job.folder).trouble.write_text(f"{type(error).__name__}: {error}")
            return 3
    return 0


def jobs() -> Iterator[Job]:
    """The jobs on standard input."""
    for line in sys.stdin:
        yield msgspec.json.decode(line, type=Job)


def main() -> int:
    """Fork one child per job, and say how each ended."""
    for job in jobs():
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = child(job)
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        ended = Ended(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else Ended(code=os.WEXITSTATUS(status))
        print(msgspec.json.encode(ended).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
