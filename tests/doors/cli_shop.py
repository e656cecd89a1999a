"""A folder with a deck and a store, and the command line in it: the stage of the tests of the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import quarterdeck
from quarterdeck.cli.outcome import run_command

SHOP = textwrap.dedent('''
    from pathlib import Path

    from quarterdeck import Quarterdeck, ToolContext, ToolFailure
    from quarterdeck.testing import ScriptedModel

    deck = Quarterdeck("shop")
    paid = Path(__file__).with_name("paid.txt")


    @deck.tool(effect="read")
    async def find_order(order_id: str) -> dict:
        """Find an order."""
        return {"order": order_id, "total": 1200}


    @deck.tool(effect="irreversible")
    async def refund(order_id: str, cents: int, ctx: ToolContext) -> str:
        """Pay money back."""
        with paid.open("a") as file:
            file.write(f"{ctx.idempotency_key} {order_id} {cents}\\n")
        return "refunded"


    @deck.tool(effect="irreversible")
    async def ship(order_id: str) -> str:
        """Send a parcel."""
        raise ToolFailure("carrier.silent", "the carrier did not answer", done=None)


    def greet(messages):
        return "hello, plum-reply \\x1b[31mred"


    refunding = [[("find_order", {"order_id": "plum-order"})], [("refund", {"order_id": "plum-order", "cents": 500})], "paid"]
    deck.agent("greet", model=ScriptedModel(greet))
    deck.agent("support", model=ScriptedModel(refunding), tools=[find_order, refund], autonomy="executes_after_approval")
    deck.agent("parcel", model=ScriptedModel([[("ship", {"order_id": "plum-order"})], "sent"]), tools=[ship])
    deck.route("parcel", "parcel", fallback="greet", escalation=["lead"])
''')


class Shop:
    """A folder with a deck and a store, and commands that are run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "quarterdeck.db"
        (folder / "shop.py").write_text(SHOP)
        (folder / "quarterdeck.toml").write_text('[quarterdeck]\napp = "shop:deck"\n')
        source = str(Path(quarterdeck.__file__).parents[1])
        self.env = {**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "error"}

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [sys.executable, "-m", "quarterdeck.cli", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    def read(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, which is quicker: for commands to which it makes no difference."""
        out, err = io.StringIO(), io.StringIO()
        path = sys.path.copy()
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run_command(list(arguments))
        finally:
            sys.path[:] = path
            for name in ("shop", "strict"):
                sys.modules.pop(name, None)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        command = [sys.executable, "-m", "quarterdeck.cli", *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=stderr, text=True)

    def json(self, *arguments: str) -> dict:
        """What a reading command prints with --json."""
        ended = self.read(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def paid(self) -> list[str]:
        """The refunds that have really happened."""
        file = self.folder / "paid.txt"
        return file.read_text().splitlines() if file.exists() else []


def error_of(ended: subprocess.CompletedProcess[str]) -> str:
    """The code of the error that a command ended with, as text and as JSON alike."""
    line = ended.stderr.strip().splitlines()[-1]
    return json.loads(line)["code"] if line.startswith("{") else line.removeprefix("error ").partition(":")[0]
