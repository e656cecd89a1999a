"""R16, R17, R20, R24 and R28 on PostgreSQL, by worker processes that are killed: budgets, order, messages, keys that are forgotten.

- `budget-race`: 64 runs in four processes want more of one account than there is, and processes die with reservations in hand. Whoever
  looks, whenever, finds no more committed and reserved than the limit; in the end the account is the fold of all journals.
- `fleet-order`: runs of a few ordering keys, in several processes that die. Of each key one run at a time takes effect, in the order of
  admission, and what they tell others arrives at least once, in that order.
- `key-expiry`: a worker dies in an effect. Who takes over repeats it under its key while the provider knows that one, and lists it as
  unknown after.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

from proof.fleet import Found, Yard, comes, submitted, suite_of, yard
from quarterdeck.app.runtime import Runtime
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing import ledger
from quarterdeck.testing.mutants_postgres import MUTANTS, rewritten

CLAIMANTS = 64
PROCESSES = 4
LIMIT = 150
"""Tool calls that all may make; they want 256."""
SPENT = """SELECT coalesce(max(committed + reserved), 0) FROM quarterdeck.accounts
WHERE account = 'all' AND dimension = 'tool_calls'"""


async def raced(kills: int, plant: AbstractContextManager[object]) -> Found:
    """Many claimants of one account; so many of their processes are killed."""
    async with yard(plant, latency_s=0.05, active=CLAIMANTS // PROCESSES, tools=LIMIT, lease_s=2.0, perform_s=1.0) as there:
        most = 0

        def look() -> int:
            nonlocal most
            ((most_now,),) = there.server.execute(SPENT, there.duty.dsn)
            most = max(most, int(str(most_now)))
            return len(set(_keys(there, "begun")))

        numbers = itertools.count()
        async with there.door() as rt:
            up = [await there.worker(f"w{next(numbers)}") for _ in range(PROCESSES)]
            await submitted(rt, CLAIMANTS)
            for kill in range(kills):
                await comes(lambda kill=kill: look() >= (kill + 1) * LIMIT // (kills + 2), 30.0)
                dying = up.pop(0)
                dying.kill()
                await dying.wait()
                up.append(await there.worker(f"w{next(numbers)}"))
            ended = await comes(lambda: look() >= 0 and _resting(there) == CLAIMANTS)
        found = [] if ended else [f"{CLAIMANTS - _resting(there)} of {CLAIMANTS} runs have not ended"]
        performed = len(set(_keys(there, "begun")))
        found += [f"{most} were committed and reserved of {LIMIT}"] if most > LIMIT else []
        found += [f"{performed} effects for a budget of {LIMIT}"] if performed > LIMIT else []
        found += [f"only {performed} of {LIMIT} were used"] if performed < LIMIT // 2 else []
        with contextlib.closing(PostgresInsights(there.duty.dsn)) as insights:
            differences = list(ledger.differences(insights, overdraft=False))
        return found + differences, {
            "kills": kills,
            "most": most,
            "limit": LIMIT,
            "performed": performed,
            "differences": len(differences),
        }


def _keys(there: Yard, word: str) -> list[str]:
    return [line.split()[1] for line in there.ledger.read_text().splitlines() if line.startswith(f"{word} ")]


def _resting(there: Yard) -> int:
    """Runs that have ended."""
    rows = there.server.execute(
        "SELECT count(*) FROM quarterdeck.runs WHERE status = ANY (ARRAY['succeeded', 'failed'])", there.duty.dsn
    )
    return int(str(rows[0][0]))


async def ordered(runs: int, kills: int, plant: AbstractContextManager[object]) -> Found:
    """Runs of four keys in three processes, some of which are killed."""
    async with yard(plant, latency_s=0.1, active=8, lease_s=2.0, perform_s=1.0) as there:
        admitted: dict[str, list[str]] = defaultdict(list)
        async with there.door() as rt:
            up = [await there.worker(f"w{number}") for number in range(3)]
            await _asked(rt, runs, admitted)
            for kill in range(kills):
                lines = (kill + 1) * runs // (kills + 1)
                await comes(lambda lines=lines: there.ledger.read_text().count("mark ") > lines, 60.0)
                dying = up.pop(0)
                dying.kill()
                await dying.wait()
                up.append(await there.worker(f"w{kill + 3}"))
            ended = await comes(lambda: there.ended() == runs)
            left = await comes(lambda: _waiting_posts(there) == 0, 60.0)
        found = [] if ended else [f"{runs - there.ended()} of {runs} runs have not ended"]
        found += [] if left else [f"{_waiting_posts(there)} messages have not left"]
        lines = [line.split() for line in there.ledger.read_text().splitlines()]
        for key, names in admitted.items():
            for word in ("mark", "told"):
                found += _out_of_order(key, names, word, [line[2] for line in lines if line[:2] == [word, key]])
        return found, {"runs": runs, "kills": kills, "messages": sum([line[0] == "told" for line in lines])}


async def _asked(rt: Runtime, runs: int, admitted: dict[str, list[str]]) -> None:
    for number in range(runs):
        key = f"k{number % 4}"
        admitted[key].append((await rt.submit("ordered", {"of": key}, ordering_key=key)).id)


def _out_of_order(key: str, names: list[str], word: str, seen: list[str]) -> list[str]:
    places = [names.index(name) for name in seen]
    found = [] if places == sorted(places) else [f"{word}: a run of {key} was passed by a later one"]
    return found if set(seen) == set(names) else [*found, f"{word}: of {len(names)} runs of {key} only {len(set(seen))}"]


def _waiting_posts(there: Yard) -> int:
    rows = there.server.execute("SELECT count(*) FROM quarterdeck.outbox WHERE status <> 'delivered'", there.duty.dsn)
    return int(str(rows[0][0]))


async def expired(runs: int, known_s: int, *, trusting: bool = False) -> Found:
    """A worker dies in its effects; the provider knows their keys for so long."""
    async with yard(nullcontext(), latency_s=60.0, known_s=known_s, lease_s=3.0, perform_s=2.0, trusting=trusting) as there:
        async with there.door() as rt:
            first = await there.worker("first", known_s=600)
            await submitted(rt, runs)
            await comes(lambda: len(_keys(there, "begun")) >= runs)
            first.kill()
            await first.wait()
            await there.worker("second", latency_s=0.0)
            forgotten = known_s < 60
            done = await comes(
                lambda: (len(_unknown(rt)) if forgotten else there.ended()) == runs or _repeated(there) > runs, 30.0
            )
        lines = [line.split() for line in there.ledger.read_text().splitlines()]
        opened = {line[1] for line in lines if line[2] == "first"}
        again = [line[1] for line in lines if line[0] == "begun" and line[2] == "second" and line[1] in opened]
        found = [] if done else [f"not every one of {runs} effects was seen to"]
        if forgotten and again:
            found.append(f"{len(again)} effects were repeated under keys that the provider has forgotten")
        elif not forgotten and sorted(again) != sorted(opened):
            found.append(f"{len(again)} of {len(opened)} effects were repeated under their keys")
        return found, {"effects": runs, "known_s": known_s, "repeated": len(again), "unknown": runs if forgotten and done else 0}


def _unknown(rt: Runtime) -> list[str]:
    return [row.run_id for row in rt.insights.runs(limit=500) if row.code == "effect.unknown"]


def _repeated(there: Yard) -> int:
    return sum([line.endswith(" second") for line in there.ledger.read_text().splitlines()])


def _mutant(name: str) -> Callable[[], AbstractContextManager[object]]:
    return next(mutant for mutant in MUTANTS if mutant.name == name).planted


def _times(count: int, trial: Callable[[], Awaitable[Found]]) -> list[Callable[[], Awaitable[Found]]]:
    return [trial] * count


UNLIMITED = rewritten(("attach", "bound IS NULL OR committed + used + reserved + taken - given_back <= bound", "true"))
UNCOUNTED = rewritten(("attach", "committed = committed + used", "committed = committed"))
NEWEST = rewritten(("take_posts", "ORDER BY o.id LIMIT 1", "ORDER BY o.id DESC LIMIT 1"))

SUITES = (
    suite_of(
        "budget-race",
        lambda quick: _times(1 if quick else 20, lambda: raced(2 if quick else 6, nullcontext())),
        {
            "an account has no limit": lambda: raced(1, UNLIMITED()),
            "what is spent is not counted": lambda: raced(1, UNCOUNTED()),
        },
    ),
    suite_of(
        "fleet-order",
        lambda quick: _times(1 if quick else 10, lambda: ordered(16 if quick else 200, 1 if quick else 6, nullcontext())),
        {
            "the line is not kept": lambda: ordered(16, 1, _mutant("line not kept at admission")()),
            "newest message first": lambda: ordered(16, 1, NEWEST()),
        },
    ),
    suite_of(
        "key-expiry",
        lambda quick: [
            lambda known_s=known_s: expired(4 if quick else 100, known_s) for known_s in ((3, 600) if quick else (3, 600) * 5)
        ],
        {"a provider knows a key for ever": lambda: expired(4, 3, trusting=True)},
    ),
)
