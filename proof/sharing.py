"""R17, R20 and R30: what runs share through the store: lines of ordering keys, messages, and what must be gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import perf_counter

from proof import erasing, keys, messages
from proof.result import Suite, SuiteResult
from quarterdeck.core.commit import Erase, SettlePost, TakenPost
from quarterdeck.dispatch.relay import Relay
from quarterdeck.engine import settling
from quarterdeck.ports.store import PostRow
from quarterdeck.store.sqlite import posting
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.testing import mutants_shared
from quarterdeck.testing.patching import Plant, patched, varied
from quarterdeck.testing.tables_outbox import OPEN, Outbox

Trial = Callable[[int], list[str]]
"""Plays the trial of a seed; what was wrong with it."""
_settle_post = Relay._see_to
_attempt = Relay._attempt
_erase = Applier._erase


async def _told_before(self: Relay, post: TakenPost) -> None:
    """The store is told that a message has arrived before it has."""
    await self._journal.submit(SettlePost(post.number, post.lane, post.ticket, "delivered", post.at_us))
    await _attempt(self, post)


async def _given_up(self: Relay, post: TakenPost) -> SettlePost:
    """A failure counts as an arrival."""
    return varied(await _attempt(self, post), outcome="delivered")


def _any_first(self: Outbox, lane: str) -> PostRow | None:
    rows = [row for number, row in self.rows.items() if self._lane_of[number] == lane and row.status in OPEN]
    return rows[-1] if rows else None


def _passing(self: Outbox, op: SettlePost) -> object:
    answer = _settle(self, op)
    if op.outcome == "again":
        row = self.rows.pop(op.number)
        self._last += 1
        self.rows[self._last] = varied(row, number=self._last)
        self._lane_of[self._last] = op.lane
    return answer


_settle = Outbox.settle


def _memory(name: str) -> Plant:
    return next(bug.planted for bug in mutants_shared.MEMORY if bug.name == name)


def _half_erased(*names: str) -> Plant:
    """Statements of an erasure that do nothing."""

    def erase(self: Applier, op: Erase) -> object:
        kept = {name: self._sql[name] for name in names}
        self._sql.update(dict.fromkeys(names, "SELECT ?1 WHERE 0"))
        try:
            return _erase(self, op)
        finally:
            self._sql.update(kept)

    return lambda: patched(Applier, "_erase", erase)


PLANTS: Mapping[str, Mapping[str, Plant]] = {
    "key-order": {
        "line not kept at admission": _memory("line not kept at admission"),
        "every end moves the line": _memory("any end moves the line"),
    },
    "outbox": {
        "told before it has arrived": lambda: patched(Relay, "_see_to", _told_before),
        "failure counts as arrival": lambda: patched(Relay, "_attempt", _given_up),
        "newest first": lambda: patched(Outbox, "_first", _any_first),
        "what failed goes to the end": lambda: patched(Outbox, "settle", _passing),
        "message recorded after its receipt": lambda: patched(settling, "_post", lambda *_: _lost()),
    },
    "erase-verify": {
        "payloads are kept": _half_erased("erase_payloads"),
        "messages are kept": lambda: patched(posting, "erase", lambda *_: None),
        "inboxes are kept": _half_erased("erase_inbox"),
        "what is shown is kept": _half_erased("erase_shown"),
    },
}
"""For each suite, its planted bugs."""


def _lost() -> object:
    raise AssertionError("the message is gone")


def _tried(name: str, trial: Trial, trials: int) -> SuiteResult:
    start = perf_counter()
    logging.disable(logging.CRITICAL)  # deaths and dead messages are told, as they should be
    try:
        bad = {seed: found for seed in range(trials) if (found := trial(seed))}
        bugs = {}
        for bug, plant in PLANTS[name].items():
            with plant():
                bugs[bug] = next((found[0] for seed in range(trials) if (found := trial(seed))), "")
    finally:
        logging.disable(logging.NOTSET)
    detail: dict[str, object] = {"bugs": bugs}
    if bad:
        detail["first_failures"] = [f"seed {seed}: {'; '.join(found[:3])}" for seed, found in list(bad.items())[:5]]
    caught = sum(bool(found) for found in bugs.values())
    return SuiteResult(name, trials, len(bad), len(bugs), caught, (perf_counter() - start) / 60, detail)


def _suite(name: str, trial: Trial, quick: int, whole: int) -> Suite:
    return Suite(name, lambda short: _tried(name, trial, quick if short else whole))


SUITES = (
    _suite("key-order", lambda seed: keys.play(keys.drawn(seed)), 60, 2_000),
    _suite("outbox", lambda seed: messages.play(messages.drawn(seed)), 60, 3_000),
    _suite("erase-verify", erasing.play, 4, 60),
)
"""R17, R20, R30."""
