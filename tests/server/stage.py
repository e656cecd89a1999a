"""A deck behind a real door on a loopback socket, for the tests of the HTTP interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import msgspec

from quarterdeck import Context, Quarterdeck, ToolContext, ToolFailure
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.errors import Unauthenticated
from quarterdeck.core.identity import EVERY_TENANT, Grant, Principal, Role
from quarterdeck.server import Door, Settings, address, create_app, listen, serve
from quarterdeck.server.identity import Authenticator
from quarterdeck.testing import ScriptedModel

PATIENCE_S = 20.0
PEOPLE = {
    "ann": Principal("ann", "user", (Grant("acme", Role.SUBMITTER),)),
    "bob": Principal("bob", "user", (Grant("acme", Role.APPROVER),)),
    "vic": Principal("vic", "user", (Grant("acme", Role.VIEWER),)),
    "deb": Principal("deb", "user", (Grant("acme", Role.DELEGATE),)),
    "opa": Principal("opa", "user", (Grant("acme", Role.OPERATOR),)),
    "zoe": Principal("zoe", "user", (Grant("globex", Role.SUBMITTER), Grant("globex", Role.APPROVER))),
    "root": Principal("root", "key", (Grant(EVERY_TENANT, Role.ADMIN),)),
    "svc": Principal("svc", "service", (Grant("acme", Role.SUBMITTER), Grant("globex", Role.SUBMITTER))),
    "none": Principal("none", "user"),
}


class ByName:
    """Authenticates whoever says a known name; the real authenticators have tests of their own."""

    async def authenticate(self, authorization: str | None) -> Principal:
        name = (authorization or "").removeprefix("Bearer ")
        if name not in PEOPLE:
            raise Unauthenticated("auth.unknown", "nobody is called that")
        return PEOPLE[name]


@dataclass
class Shop:
    """A deck whose slow parts tests let go of."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    paid: list[str] = field(default_factory=list)

    def deck(self) -> Quarterdeck:
        deck = Quarterdeck("shop")

        @deck.tool(effect="read")
        async def find_order(order_id: str) -> dict[str, object]:
            """Find an order."""
            return {"order": order_id}

        @deck.tool(effect="irreversible")
        async def refund(order_id: str, ctx: ToolContext) -> str:
            """Pay money back."""
            self.paid.append(ctx.idempotency_key)
            return "refunded"

        @deck.tool(effect="irreversible")
        async def ship(order_id: str) -> str:
            """Send a parcel."""
            raise ToolFailure("carrier.silent", "the carrier did not answer", done=None)

        @deck.tool(effect="read")
        async def wait_for_it(ctx: ToolContext) -> str:
            """Come back when the test says so."""
            ctx.progress(1, 2, "at the door")
            await self.gate.wait()
            return "now"

        @deck.workflow("price")
        async def price(ctx: Context, pounds: int) -> dict[str, int]:
            if pounds < 0:
                raise ValueError(f"{pounds} is no price")
            return {"pence": 100 * pounds}

        many = [[("find_order", {"order_id": f"o{number}"})] for number in range(9)]
        deck.agent("greet", model=ScriptedModel(lambda messages: f"hello {messages[-1].content}"))
        deck.agent("slow", model=ScriptedModel([[("wait_for_it", {})], "done waiting"]), tools=[wait_for_it])
        deck.agent(
            "support",
            model=ScriptedModel([[("find_order", {"order_id": "o1"})], [("refund", {"order_id": "o1"})], "paid"]),
            tools=[find_order, refund],
            autonomy="executes_after_approval",
        )
        deck.agent("parcel", model=ScriptedModel([[("ship", {"order_id": "o1"})], "sent"]), tools=[ship])
        deck.agent("busy", model=ScriptedModel([*many, "all found"]), tools=[find_order], budget=_wide())
        deck.route("task", "greet")
        deck.route("globex_only", "greet", tenants=["globex"])
        return deck


def _wide() -> object:
    from quarterdeck import Budget

    return Budget(turns=20, tools=20, context=60_000)


@dataclass
class House:
    """A door that is open: its address, what is behind it, and clients by name."""

    url: str
    runtime: Runtime
    door: Door
    shop: Shop
    serving: asyncio.Task[None]

    def client(self, name: str | None = "ann", **options: object) -> httpx2.AsyncClient:
        headers = {} if name is None else {"authorization": f"Bearer {name}"}
        return httpx2.AsyncClient(
            base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False, verify=False, **options
        )  # type: ignore[arg-type]

    @property
    def place(self) -> tuple[str, int]:
        """Host and port, for raw sockets."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)


@asynccontextmanager
async def open_house(
    folder: Path, settings: Settings | None = None, authenticator: Authenticator | str | None = "names", max_active: int = 64
) -> AsyncIterator[House]:
    chosen = msgspec.structs.replace(settings or Settings(), port=0)
    made = Shop()
    known = ByName() if isinstance(authenticator, str) else authenticator
    async with made.deck().start(folder / "store.db", drain_s=0.0, max_active=max_active) as runtime:
        door = create_app(runtime, known, chosen)
        listener = listen(chosen)
        url, opened = address(listener), asyncio.Event()
        serving = asyncio.get_running_loop().create_task(serve(door, listener=listener, ready=lambda _: opened.set()))
        try:
            await asyncio.wait_for(opened.wait(), PATIENCE_S)
            yield House(url, runtime, door, made, serving)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go round until this becomes true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # noqa: TID251 - polls, so that nothing has to be hooked


async def decided(house: House, run_id: str) -> dict[str, object]:
    """The one approval that a run waits for, as the approver sees it."""
    await until(lambda: (row := house.runtime.insights.run(run_id)) is not None and row.status == "waiting")
    async with house.client("bob") as client:
        found = (await client.get("/v1/approvals")).json()["approvals"]
    [approval] = [each for each in found if each["run_id"] == run_id]
    return approval
