"""B01: the HTTP interface under generated requests, valid and invalid, against its own description.

A door is opened on a loopback socket, over a real store; Schemathesis reads ``/openapi.json`` and sends what it allows and what it
does not, one request after the other and in sequences. No answer may be a server error, have a status or a body that is not described,
or let in what the description forbids. *Planted*: a door that answers one operation with a status and a body that nobody described, and
one whose handler has a defect; both must be found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import msgspec

from proof.result import Suite, SuiteResult
from quarterdeck import Quarterdeck
from quarterdeck.core.errors import Unauthenticated
from quarterdeck.core.identity import EVERY_TENANT, Grant, Principal, Role
from quarterdeck.server import Settings, create_app, listen, serve, table
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.testing import ScriptedModel

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method"
)
ROOT = Path(__file__).resolve().parents[1]


TOKEN = "fuzzer"  # noqa: S105 - nobody else's


class OneCaller:
    """Knows one administrator."""

    async def authenticate(self, authorization: str | None) -> Principal:
        if authorization != f"Bearer {TOKEN}":
            raise Unauthenticated("auth.unknown", "send the one token that there is")
        return Principal(TOKEN, "service", (Grant(EVERY_TENANT, Role.ADMIN),))


def deck() -> Quarterdeck:
    """Routes that end at once, whatever they are asked."""
    made = Quarterdeck("fuzz")

    @made.tool(effect="irreversible")
    async def pay(cents: int) -> str:
        """Pay."""
        return "paid"

    made.agent("task", model=ScriptedModel(lambda messages: "done"))
    made.agent("asks", model=ScriptedModel([[("pay", {"cents": 1})], "paid"]), tools=[pay], autonomy="executes_after_approval")
    return made


@contextlib.contextmanager
def opened() -> Iterator[str]:
    """A door in a thread of its own; its address."""
    addresses: list[str] = []
    ready, loops = threading.Event(), []

    async def main(folder: str) -> None:
        settings = Settings(port=0, max_wait_s=1.0, rate_per_s=100_000.0, burst=100_000)
        loops.append((asyncio.get_running_loop(), asyncio.current_task()))
        async with deck().start(Path(folder) / "store.db", drain_s=0.0) as runtime:
            for number in range(3):
                await runtime.submit("asks", {"n": number}, user="seed", tenant="default")

            def tell(url: str) -> None:
                addresses.append(url)
                ready.set()

            await serve(create_app(runtime, OneCaller(), settings), listener=listen(settings), ready=tell)

    def run(folder: str) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(main(folder))

    with tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=run, args=(folder,))
        thread.start()
        try:
            if not ready.wait(30):
                raise RuntimeError("the door did not open")
            yield addresses[0]
        finally:
            loop, task = loops[0]
            loop.call_soon_threadsafe(task.cancel)
            thread.join()


def fuzz(url: str, examples: int, phases: str, only: str | None = None) -> tuple[int, list[str]]:
    """How many requests were sent, and what was found."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.ndjson"
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", CHECKS, "--phases", phases,
            "--max-examples", str(examples), "--seed", "1", "--workers", "1", "--request-timeout", "20",
            "-H", f"Authorization: Bearer {TOKEN}", "--no-color",
            "--report", "ndjson", "--report-ndjson-path", str(report), *(["--include-operation-id", only] if only else []),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3_600, check=False)
        sent = report.read_text("utf-8").count('"request":') if report.exists() else 0
    if done.returncode == 0:
        return sent, []
    return sent, [done.stdout[-6_000:] + done.stderr[-2_000:]]


async def _undescribed(_: Exchange) -> object:
    return answer({"colour": "red"}, 207)


async def _defective(_: Exchange) -> object:
    raise ZeroDivisionError


def planted() -> int:
    """How many of the planted bugs are found."""
    caught = 0
    for handler in (_undescribed, _defective):
        rows = tuple(msgspec.structs.replace(row, handler=handler) if row.name == "listTools" else row for row in table.TABLE)
        with patch("quarterdeck.server.door.TABLE", rows), opened() as url:
            caught += bool(fuzz(url, 5, "fuzzing", "listTools")[1])
    return caught


def run(quick: bool) -> SuiteResult:
    """The whole suite."""
    began_s = perf_counter()
    with opened() as url:
        sent, found = fuzz(
            url, 4 if quick else 100, "examples,coverage,fuzzing" if quick else "examples,coverage,fuzzing,stateful"
        )
    detail: dict[str, object] = {"operations": len(table.TABLE), **({"found": found} if found else {})}
    return SuiteResult("openapi-fuzz", sent, len(found), 2, planted(), (perf_counter() - began_s) / 60, detail)


SUITES = (Suite("openapi-fuzz", run),)

if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(run("--quick" in sys.argv)), indent=1))
