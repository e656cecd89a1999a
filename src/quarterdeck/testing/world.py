"""The world outside of a simulated runtime: providers that do things, and models that say things, both unreliably.

Providers keep their own ledger of what they did, under which key and when; the runtime cannot see it. A request that has left goes on
at the provider's, whatever becomes of the process that sent it. What a provider *says* is true: a declared failure was not done, and
a reconcile function answers only when it knows. What it does *not* say is what the runtime has to cope with.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import msgspec

from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.tools import Finding, ToolContext, ToolFailure
from quarterdeck.testing.processes import Process, current
from quarterdeck.testing.reached import Reached
from quarterdeck.testing.scenario import Outage, Rates, Scenario

UNDO = ".undo"
"""The name of what undoes a tool is the tool's, with this behind it."""


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every simulated tool takes."""

    target: str
    amount: int


class Undone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the tools take that undo others."""

    key: str
    arguments: dict[str, object]
    result: object = None


class Effect(msgspec.Struct, frozen=True):
    """One thing that a provider did."""

    tool: str
    key: str
    at_s: float
    arguments: bytes


class Watcher(Protocol):
    """Who is told what the world sees of the runtime; the oracle."""

    def attempt(self, spec: ToolSpec, arguments: bytes, context: ToolContext) -> None:
        """A tool is about to be called."""
        ...

    def asks(self, spec: ToolSpec, context: ToolContext) -> None:
        """A tool is about to be asked how an effect ended."""
        ...

    def violated(self, invariant: str, message: str) -> None:
        """Something that must never happen has happened."""
        ...


@dataclass(slots=True)
class Account:
    """What a provider knows of one key. ``known_by`` is the process that knows for sure that nothing was done so far."""

    effects: list[Effect] = field(default_factory=list)
    requests: int = 0
    in_flight: int = 0
    doubtful: bool = False
    known_by: Process | None = None
    answered: tuple[float, Process, int] | None = None


class World:
    """Chance, faults and the providers' ledger of one simulation."""

    def __init__(self, scenario: Scenario, clock: Clock, reached: Reached, outside: Context) -> None:
        self.scenario = scenario
        self.rates: Rates = scenario.rates
        self.clock = clock
        self.reached = reached
        self.outside = outside
        self.chance = random.Random(f"world/{scenario.seed}")
        self.faulty = True
        self.ledger: dict[str, Account] = {}
        self.billed: Counter[str] = Counter()
        self.watcher: Watcher | None = None
        self.kill: Callable[[Process], None] = Process.die
        self.meddle: Callable[[str, str], None] = lambda run_id, tool: None
        self.crashes_left = scenario.crashes
        self.outages = list(scenario.outages)
        self.keys_expire = scenario.key_kept_s < 86_400
        self._requests: set[asyncio.Task[None]] = set()

    def roll(self, rate: float) -> bool:
        """Whether a fault of this rate strikes now."""
        return self.faulty and rate > 0.0 and self.chance.random() < rate

    def is_out(self, name: str) -> bool:
        """Whether a tool or model is having its outage now."""
        now_s = self.clock.monotonic_s()
        return self.faulty and any(outage.name == name and outage.from_s <= now_s < outage.until_s for outage in self.outages)

    def between(self, least: float, most: float) -> float:
        """A drawn number."""
        return least + self.chance.random() * (most - least)

    def dies(self, rate: float) -> bool:
        """Whether the calling process dies now; if so it has, and must not be let go on."""
        process = current()
        if process is None or self.crashes_left <= 0 or not self.roll(rate):
            return False
        self.crashes_left -= 1
        self.kill(process)
        return True

    def trouble(self, name: str) -> None:
        """Whatever killed a process in the middle of a call may keep the provider busy for a while."""
        if self.chance.random() < 0.4:
            now_s = self.clock.monotonic_s()
            self.outages.append(Outage(name, now_s, now_s + self.between(1.0, 90.0)))

    def account(self, key: str) -> Account:
        """What is known under a key."""
        return self.ledger.setdefault(key, Account())

    @property
    def quiet(self) -> bool:
        """Whether no request is on its way."""
        return not self._requests

    def request(self, tool: SimulatedTool, arguments: bytes, key: str, latency_s: float) -> asyncio.Future[bytes]:
        """Send a request to a provider: it arrives and is carried out whatever becomes of the sender."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        task = loop.create_task(self._carry_out(tool, arguments, key, latency_s, answer), context=self.outside)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard, context=self.outside)
        return answer

    async def _carry_out(
        self, tool: SimulatedTool, arguments: bytes, key: str, latency_s: float, answer: asyncio.Future[bytes]
    ) -> None:
        account = self.account(key)
        account.in_flight += 1
        await self.clock.sleep(latency_s)
        account.in_flight -= 1
        if tool.spec.effect is not EffectClass.READ:
            self._do(tool, arguments, key, account)
        if answer.cancelled():
            self.reached.sometimes("effect.late")
        elif not answer.done():
            answer.set_result(b'{"done":"%s"}' % tool.spec.name.encode())

    def _do(self, tool: SimulatedTool, arguments: bytes, key: str, account: Account) -> None:
        now_s = self.clock.boottime_s()
        if tool.spec.idempotent and account.effects and now_s - account.effects[0].at_s < self.scenario.key_kept_s:
            self.reached.sometimes("effect.repeated_under_key")
            return
        account.effects.append(Effect(tool.spec.name, key, now_s, arguments))
        if len(account.effects) > 1 and self.watcher is not None:
            times = ", ".join(f"{effect.at_s:.2f} s" for effect in account.effects)
            self.watcher.violated("I2", f"{tool.spec.name} did {key} {len(account.effects)} times: at {times}")


async def for_ever() -> NoReturn:
    """Never return: the caller is dead, or waits for what never comes."""
    while True:
        await asyncio.get_running_loop().create_future()


class SimulatedTool:
    """A tool whose provider is the world. Honest about what it says, unreliable about everything else."""

    def __init__(self, world: World, spec: ToolSpec) -> None:
        self._world = world
        self.spec = spec

    def fit(self, arguments: bytes) -> str:
        """Why these arguments do not fit, or an empty string."""
        try:
            (_undone if self.spec.name.endswith(UNDO) else _arguments).decode(arguments)
        except msgspec.DecodeError as error:
            return str(error)
        return ""

    async def perform(self, arguments: bytes, context: ToolContext) -> bytes:
        """Call the provider once, under this attempt's drawn fate."""
        world, rates = self._world, self._world.rates
        process = current()
        if process is None or process.dead:
            await for_ever()
        account = world.account(context.idempotency_key)
        self._note_attempt(arguments, context, account)
        if world.dies(rates.crash_tool / 2):
            world.reached.sometimes("crash.tool")
            world.trouble(self.spec.name)
            await for_ever()
        self._fail_before(account, process)
        timeout_s = world.scenario.tool_timeout_s
        if world.roll(rates.tool_hangs):
            if world.chance.random() < 0.5:
                world.request(self, arguments, context.idempotency_key, world.between(0.0, 1.0)).cancel()
            await for_ever()
        slowest_s = timeout_s * (0.9 if world.keys_expire else 1.2)
        latency_s = world.between(0.0, 0.05) if not world.roll(rates.tool_slow) else world.between(0.05, slowest_s)
        if world.roll(rates.tool_late) and not self.spec.reconcilable:
            latency_s = timeout_s + world.between(0.0, 30.0)
        answer = world.request(self, arguments, context.idempotency_key, latency_s)
        if world.dies(rates.crash_tool / 2):
            world.reached.sometimes("crash.tool")
            world.trouble(self.spec.name)
            await for_ever()
        result = await answer
        if world.dies(rates.crash_tool):
            world.reached.sometimes("crash.tool")
            world.trouble(self.spec.name)
            await for_ever()
        if world.roll(rates.tool_lost):
            world.reached.sometimes("effect.answer_lost")
            if world.chance.random() < 0.3:
                raise ToolFailure("tool.unsure", "the provider did not say", transient=True, done=None)
            raise ConnectionResetError("the connection was cut")
        account.answered = (world.clock.boottime_s(), process, process.paused)
        return result

    async def reconcile(self, arguments: bytes, context: ToolContext) -> Finding:
        """Ask the provider. It answers when nothing of this key is on its way any more."""
        world = self._world
        process = current()
        if process is None or process.dead:
            await for_ever()
        if world.watcher is not None:
            world.watcher.asks(self.spec, context)
        if world.dies(world.rates.crash_tool / 2):
            await for_ever()
        if world.roll(world.rates.ask_fails):
            if world.chance.random() < 0.5:
                return Finding(ReceiptStatus.UNKNOWN)
            raise ConnectionResetError("the connection was cut")
        account = world.account(context.idempotency_key)
        await world.clock.sleep(world.between(0.0, 0.5))
        while account.in_flight:
            await world.clock.sleep(0.5)
        if account.effects:
            world.reached.sometimes("effect.asked_done")
            return Finding(ReceiptStatus.SUCCEEDED, {"done": self.spec.name})
        world.reached.sometimes("effect.asked_not_done")
        account.doubtful, account.known_by = False, process
        return Finding(ReceiptStatus.FAILED)

    def _note_attempt(self, arguments: bytes, context: ToolContext, account: Account) -> None:
        world, spec = self._world, self.spec
        if world.watcher is not None:
            world.watcher.attempt(spec, arguments, context)
        if world.roll(world.rates.meddle):
            world.meddle(context.run_id, spec.name)
        account.requests += 1
        if spec.repeatable:
            return
        known = account.requests == 1 or (not account.doubtful and account.known_by is current())
        if not known and world.watcher is not None:
            world.watcher.violated("I2", f"{spec.name} was attempted again under {context.idempotency_key}, not knowing")
        account.doubtful = True

    def _fail_before(self, account: Account, process: Process | None) -> None:
        """The fates in which nothing is done, and the caller is told so."""
        world, rates = self._world, self._world.rates
        failure: Exception | None = None
        if world.roll(rates.tool_refused) or world.is_out(self.spec.name):
            failure = ConnectionRefusedError("nobody listens")
        elif world.roll(rates.tool_fails):
            transient = world.chance.random() < 0.6
            failure = ToolFailure("tool.busy" if transient else "tool.rejected", "not done", transient=transient, done=False)
        elif world.roll(rates.tool_odd):
            failure = RuntimeError("an odd failure, before anything was done")
        if failure is not None:
            account.doubtful, account.known_by = False, process
            raise failure


def tool_specs(scenario: Scenario, version: int) -> tuple[ToolSpec, ...]:
    """The manifests of the simulated tools. Another ``version`` describes their arguments otherwise, so their
    hashes differ; what undoes them takes the same in every version."""
    schema = _SCHEMA % version
    kept_s = scenario.key_kept_s
    specs = (
        ToolSpec("lookup", "look something up", EffectClass.READ, schema, timeout_s=scenario.tool_timeout_s),
        ToolSpec(
            *("note", "write a note", EffectClass.WRITE, schema),
            idempotent=True, idempotent_for_s=kept_s, timeout_s=scenario.tool_timeout_s, cost_microusd=50,
        ),
        ToolSpec(
            *("ship", "ship a parcel", EffectClass.EXTERNAL, schema),
            idempotent=True, idempotent_for_s=kept_s, reconcilable=True, timeout_s=scenario.tool_timeout_s,
        ),
        ToolSpec(
            *("pay", "pay somebody", EffectClass.IRREVERSIBLE, schema),
            reconcilable=True, timeout_s=scenario.tool_timeout_s, cost_microusd=200,
        ),
        ToolSpec("mail", "send a letter", EffectClass.EXTERNAL, schema, timeout_s=scenario.tool_timeout_s, cost_microusd=10),
    )  # fmt: skip
    return specs if not scenario.ventures else (*specs, *[_undoing(spec) for spec in specs if spec.idempotent])


def _undoing(spec: ToolSpec) -> ToolSpec:
    return msgspec.structs.replace(
        spec,
        name=spec.name + UNDO,
        description=f"undo {spec.name}",
        input_schema=_UNDO_SCHEMA,
        reconcilable=False,
        cost_microusd=0,
    )


_arguments: msgspec.json.Decoder[Arguments] = msgspec.json.Decoder(Arguments, strict=True)
_undone: msgspec.json.Decoder[Undone] = msgspec.json.Decoder(Undone)
_UNDO_SCHEMA = (
    b'{"type":"object","properties":{"key":{"type":"string"},"arguments":{"type":"object"},"result":{}},'
    b'"required":["key","arguments"],"additionalProperties":false}'
)
_SCHEMA = (
    b'{"type":"object","description":"version %d","properties":{"target":{"type":"string"},"amount":{"type":"integer"}},'
    b'"required":["target","amount"],"additionalProperties":false}'
)
