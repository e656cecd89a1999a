"""Tells, once, that a limited account has come near its limit: a row of the audit log, which stays, and a line of the process's own log.

What is near is a fact of the store, so any number of processes may look; each looks into the log first for what was told already. Two that
look in the same moment may both tell. An account of a period has a new name in each, and so is told of anew.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from quarterdeck.core.audit import Audit, read
from quarterdeck.core.commit import AddAudit
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.windows import outlook, tenant_of
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import AccountRow, Insights, Journal

EVERY_S = 15.0
"""How often the accounts are looked at."""
ACTION = "account.near"
"""What the audit log calls it."""
_PAGE = 500
_encoder = msgspec.json.Encoder(order="deterministic")
_log = logging.getLogger(__name__)


class Nearing:
    """Looks for as long as it runs. ``by`` is how the log names it."""

    def __init__(self, journal: Journal, insights: Insights, clock: Clock, by: str) -> None:
        self._journal = journal
        self._insights = insights
        self._clock = clock
        self._by = by
        self._told: set[tuple[str, str, int]] = set()
        self._read_to = 0
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._look_for_ever(), name="quarterdeck-nearing")

    async def stop(self) -> None:
        """Stop; what was told is told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> int:
        """Look once; of how many accounts it was told."""
        async with self._lock:
            return await self._look()

    async def _look(self) -> int:
        now_us, told = self._clock.now_us(), 0
        near = [row for row in self._insights.accounts() if self._is_news(row, now_us)]
        if near:
            await self._catch_up()
        for row in near:
            key = (row.account, row.dimension, row.limit or 0)
            if key in self._told:
                continue
            seen = outlook(row.account, row.limit, row.committed, row.reserved, now_us)
            detail = _encoder.encode({**msgspec.structs.asdict(row), **msgspec.structs.asdict(seen)}).decode()
            tenant = tenant_of(row.account) or ""
            await self._journal.submit(AddAudit(Audit(ACTION, self._by, row.account, now_us, "", tenant, detail)))
            self._told.add(key)
            told += 1
            _log.warning("account %s is %s: %s %d of %d", row.account, seen.standing, row.dimension, row.committed, row.limit)
        return told

    def _is_news(self, row: AccountRow, now_us: int) -> bool:
        """Whether an account is near its limit by what was spent, and was not known to be; a slice that is held may come back. A limit
        of nothing is a prohibition, and no news.
        """
        if not row.limit or (row.account, row.dimension, row.limit) in self._told:
            return False
        return outlook(row.account, row.limit, row.committed, 0, now_us).standing != "open"

    async def _catch_up(self) -> None:
        """Read what was told since the last time, by whomever."""
        while page := self._insights.audit(self._read_to, _PAGE):
            for row in page:
                said = read(row)
                if said.action == ACTION:
                    detail = msgspec.json.decode(said.detail, type=dict[str, object])
                    self._told.add((said.target, str(detail["dimension"]), int(str(detail["limit"]))))
            self._read_to = page[-1].seq
            await self._clock.sleep(0.0)

    async def _look_for_ever(self) -> None:
        while True:
            try:
                await self.look()
            except QuarterdeckError as error:
                _log.warning("the accounts could not be looked at: %s", error)
            await self._clock.sleep(EVERY_S)
