"""A small deck, and runtimes of it that share one store on virtual time: the stage of the tests of this room."""

from __future__ import annotations

from collections import Counter

from quarterdeck import Quarterdeck, ToolFailure
from quarterdeck.app.starting import Starting
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.clock import SeededEntropy, VirtualClock
from quarterdeck.testing.memory import MemoryStore


def desk(*, latency_s: float = 0.0) -> Quarterdeck:
    """A deck with an agent that refunds after approval, one whose parcel gets lost, one that greets, and one that is slow."""
    deck = Quarterdeck("desk")

    @deck.tool(effect="irreversible")
    async def refund(order: str) -> str:
        """Pay money back."""
        return "refunded"

    @deck.tool(effect="external")
    async def ship(order: str) -> str:
        """Send a parcel."""
        raise ToolFailure("carrier.silent", "the carrier did not answer", done=None)

    @deck.tool(effect="read")
    async def look(order: str) -> str:
        """Look an order up."""
        return "a mug"

    refunding = ScriptedModel([[("refund", {"order": "A1"})], "paid"])
    deck.agent("refunds", model=refunding, tools=[refund], autonomy="executes_after_approval")
    deck.agent("parcels", model=ScriptedModel([[("ship", {"order": "A1"})], "sent"]), tools=[ship])
    deck.agent("greets", model=ScriptedModel(["hello"]))
    deck.agent("slow", model=ScriptedModel([[("look", {"order": "A1"})], "found"], latency_s=latency_s), tools=[look])
    return deck


def starting(deck: Quarterdeck, store: MemoryStore, clock: VirtualClock, *, max_active: int = 64) -> Starting:
    """A runtime on a handle of a store in memory; one with ``max_active=0`` drives nothing."""

    async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
        return store, store

    entropy = SeededEntropy(sum(store.worker.encode()))
    return Starting(deck, open_store=open_store, clock=clock, entropy=entropy, worker=store.worker, max_active=max_active)


class Counted(MemoryStore):
    """A handle that counts what is read through it."""

    def __init__(self, worker: str, of: MemoryStore | None = None) -> None:
        super().__init__(worker, quiesced=False, shared=of._shared if of is not None else None)
        self.reads: Counter[str] = Counter()

    def events(self, run_id, after=0, limit=10_000):
        self.reads["events"] += 1
        return super().events(run_id, after, limit)

    def run(self, run_id):
        self.reads["run"] += 1
        return super().run(run_id)

    def positions(self, run_ids):
        self.reads["positions"] += 1
        self.reads["positions of runs"] += len(run_ids)
        return super().positions(run_ids)
