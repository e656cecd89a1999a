"""What people do, from another process than the worker's: decide what waits for them, and say how a doubtful effect ended.

``python -m examples.support.people ls``, ``... approve ID --by NAME``, ``... reject ID --by NAME --reason WHY`` work in a second
terminal while the demo is up. Nothing here appends to a journal: an answer is a row in the run's inbox, which the worker folds in.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from examples.support.shop import Shop
from examples.support.watching import Watch, clock
from examples.support.worker import store_of
from quarterdeck import QuarterdeckError
from quarterdeck.app.runtime import refusal
from quarterdeck.core.commit import DecideApproval, Deliver, Op, Refused
from quarterdeck.ports.store import ApprovalRow
from quarterdeck.store.sqlite.visitor import visit


def decide(store: Path, row: ApprovalRow, *, approve: bool, by: str, reason: str = "") -> None:
    """Answer one approval, for exactly the action that ``row`` shows. Raises ``Refused`` with the code of whatever forbids it."""
    outcome = "approved" if approve else "rejected"
    _apply(store, DecideApproval(row.approval, row.digest, outcome, by, reason, clock.now_us()))


def resolve(store: Path, run_id: str, call: str, *, done: bool, by: str) -> None:
    """Say whether an effect that is unknown has happened."""
    status = "succeeded" if done else "failed"
    body = msgspec.json.encode({"call": call, "status": status, "by": by, "result": f"{by} has looked: {status}"})
    _apply(store, Deliver(run_id, "receipt", body, clock.now_us(), f"resolve:{call}"))


def shown(row: ApprovalRow) -> str:
    """The action that somebody is asked about, as stored: tool, arguments, and why it asks."""
    action = msgspec.json.decode(row.shown, type=dict[str, object])
    arguments = msgspec.json.encode(action["arguments"]).decode()
    return f"{row.tool} {arguments}   asked for: {', '.join(msgspec.convert(action['reasons'], list[str]))}"


def _apply(store: Path, op: Op) -> None:
    outcome = visit(store, op)
    if isinstance(outcome, Refused):
        raise refusal(outcome)


def main(arguments: Sequence[str]) -> int:
    """List, approve or reject."""
    parser = argparse.ArgumentParser(prog="python -m examples.support.people", description="Decide what waits for a person.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("ls", help="what waits")
    for verb in ("approve", "reject"):
        chosen = verbs.add_parser(verb, help=f"{verb} one action")
        chosen.add_argument("approval")
        chosen.add_argument("--by", default="second-terminal@shop.example")
        chosen.add_argument("--reason", default="")
    options = parser.parse_args(arguments)
    store = store_of(Shop.here())
    try:
        watch = Watch(store)
        rows = watch.approvals()
        watch.close()
        if options.verb == "ls":
            print("\n".join(f"{row.approval}\n    {shown(row)}" for row in rows) or "nothing waits for a person")
            return 0
        row = next((row for row in rows if row.approval == options.approval), None)
        if row is None:
            print(f"{options.approval} does not wait for anybody; `ls` shows what does")
            return 2
        decide(store, row, approve=options.verb == "approve", by=options.by, reason=options.reason)
    except QuarterdeckError as error:
        print(error)
        return 3
    print("done; the worker goes on with it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
