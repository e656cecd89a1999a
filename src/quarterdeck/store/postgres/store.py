"""Both sides of the store for a runtime, from one connection string."""

from __future__ import annotations

from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.reader import PATIENCE_S, PostgresInsights


class OpenPostgres:
    """Opens a database for one runtime: what ``deck.start(open_store=...)`` takes."""

    def __init__(self, dsn: str, lease_s: float) -> None:
        self.dsn = dsn
        self.lease_s = lease_s

    async def __call__(self, entropy: Entropy) -> tuple[Journal, Insights]:
        """Open both sides; raises ``UsageError`` or ``Unavailable`` with a ``store.*`` code."""
        journal = await PostgresJournal.open(self.dsn, lambda: int.from_bytes(entropy.token(6), "big"), self.lease_s)
        try:
            insights = PostgresInsights(self.dsn, patience_s=PATIENCE_S)
        except BaseException:
            await journal.close()
            raise
        journal.closed(insights.close)
        return journal, insights
