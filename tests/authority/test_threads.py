"""All runs of a thread together last no longer than a limit, whoever asks at once and however often it is started anew. (C4)"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quarterdeck import Budget, Quarterdeck, Refused, UsageError
from quarterdeck.app.starting import Starting
from quarterdeck.app.verifying import check_store
from quarterdeck.app.views import state_of
from quarterdeck.core.contract import Caller, Envelope
from quarterdeck.core.vocabulary import Mode
from quarterdeck.core.windows import ENDS
from quarterdeck.store.postgres import open_store
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.ledger import differences
from tests.app.test_switches import Pushed

MINUTE_US = 60_000_000
DAY_US = 86_400_000_000


def desk(per: str | None = None) -> Quarterdeck:
    """Threads that last a minute."""
    deck = Quarterdeck("lifetimes")

    @deck.tool(effect="irreversible")
    async def pay(cents: int) -> str:
        """Pay."""
        return "paid"

    waits = ScriptedModel([[("pay", {"cents": 5})], "over"])
    deck.agent("clerk", model=waits, tools=[pay], autonomy="executes_after_approval")
    deck.budget("thread:*", Budget(deadline="60s"), per=per)
    return deck


def asks(thread: str | None, tenant: str = "acme", key: str | None = None) -> Envelope:
    return Envelope("clerk", "hello", caller=Caller(tenant, "ada"), thread_id=thread, mode=Mode.ASYNC_JOB, idempotency_key=key)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    if request.param == "sqlite":
        return {"store": tmp_path / "s.db"}
    return {"open_store": open_store(request.getfixturevalue("database"))}


async def test_a_thread_lasts_so_long_also_over_a_restart(where: dict[str, object]) -> None:
    clock = Pushed()
    async with Starting(desk(), clock=clock, **where) as rt:  # type: ignore[arg-type]
        runs = await asyncio.gather(*[rt.admit(asks("one", key=f"k{number}")) for number in range(8)])
        ends = {state_of(rt.insights.events(run.id)).contract.deadline_at_us for run in runs}
        [account] = [row for row in rt.insights.accounts("thread:acme/one") if row.dimension == ENDS]
        assert account.limit in ends, "whoever was the first has decided"
        await runs[0].rest(20)
    clock.ahead_us = 59 * 1_000_000
    async with Starting(desk(), clock=clock, **where) as rt:  # type: ignore[arg-type]
        late = await rt.admit(asks("one"))
        assert state_of(rt.insights.events(late.id)).contract.deadline_at_us == account.limit, (
            "the first run's end, not an own one"
        )
        clock.ahead_us = MINUTE_US
        with pytest.raises(Refused, match=r"budget\.lifetime"):
            await rt.admit(asks("one"))
        assert (await rt.admit(asks("one", key="k0"))).id == runs[0].id, "what was admitted is there"
        for other in (asks("two"), asks("one", "umbrella"), asks(None)):
            await rt.admit(other)
        result = await runs[0].result(30)
        assert (result.status, result.code) == ("failed", "deadline.exceeded")
        assert differences(rt.insights) == []
        assert check_store(rt.insights, lambda _: None).findings == ()


async def test_a_lifetime_begins_anew_with_each_period(tmp_path: Path) -> None:
    clock = Pushed()
    async with Starting(desk("day"), tmp_path / "s.db", clock=clock) as rt:
        await rt.admit(asks("one"))
        clock.ahead_us = MINUTE_US
        with pytest.raises(Refused, match=r"budget\.lifetime"):
            await rt.admit(asks("one"))
        clock.ahead_us = DAY_US
        await rt.admit(asks("one"))


def test_only_a_thread_has_a_lifetime() -> None:
    deck = Quarterdeck("d")
    for account, length in (("tenant:*", "60s"), ("all", "60s"), ("thread:*", 0)):
        with pytest.raises(UsageError, match=r"budget\.invalid"):
            deck.budget(account, Budget(deadline=length))
