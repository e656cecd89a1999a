"""What one simulation is about, drawn from its seed.

Swarm style: not every fault in every simulation, but a drawn set of them, each at a drawn rate, so that rare combinations meet
and a common fault does not hide a rare one. A scenario is data; nothing in it changes while the simulation runs.

>>> draw(7) == draw(7), draw(7) == draw(8)
(True, False)
"""

from __future__ import annotations

import random

import msgspec

from quarterdeck.core.contract import Limits
from quarterdeck.core.vocabulary import Autonomy, CancelMode, Mode


class Rates(msgspec.Struct, frozen=True):
    """How often each fault strikes, as a probability per call (or per moment, for ``cancel`` and ``approve``-like ones)."""

    crash_commit: float = 0.0
    crash_tool: float = 0.0
    crash_model: float = 0.0
    crash_start: float = 0.0
    pause: float = 0.0
    lost_before: float = 0.0
    lost_after: float = 0.0
    slow_store: float = 0.0
    tool_refused: float = 0.0
    tool_fails: float = 0.0
    tool_lost: float = 0.0
    tool_hangs: float = 0.0
    tool_late: float = 0.0
    tool_slow: float = 0.0
    tool_odd: float = 0.0
    ask_fails: float = 0.0
    model_transient: float = 0.0
    model_permanent: float = 0.0
    model_billed: float = 0.0
    model_hangs: float = 0.0
    model_slow: float = 0.0
    garbage: float = 0.0
    repeat: float = 0.0
    cancel: float = 0.0
    ignore: float = 0.0
    reject: float = 0.0
    step_clock: float = 0.0
    sleep_machine: float = 0.0
    redeploy: float = 0.0
    meddle: float = 0.0


class Venture(msgspec.Struct, frozen=True):
    """A program of a simulated workflow: what it does, with a number and with parts."""

    kind: str
    number: int
    parts: tuple[Venture, ...] = ()


class Order(msgspec.Struct, frozen=True):
    """One run that a client asks for: when, which route, with what limits, and whether it is cancelled when."""

    label: str
    at_s: float
    route: str
    tenant: str
    mode: Mode | None = None
    deadline_s: float | None = None
    turns: int | None = None
    tokens: int | None = None
    cost: int | None = None
    cancel_after_s: float | None = None
    followed: bool = False
    twice: bool = False
    venture: Venture | None = None
    cancel_mode: CancelMode | None = None
    news_s: tuple[float, ...] = ()


class AgentPlan(msgspec.Struct, frozen=True):
    """One agent and its route."""

    name: str
    autonomy: Autonomy
    tools: tuple[str, ...]
    parallel: bool
    degrade_at: float | None
    limits: Limits
    approval_timeout_s: int


class SwitchPlan(msgspec.Struct, frozen=True):
    """A switch that is set at one moment and cleared at another."""

    name: str
    on_s: float
    off_s: float


class Outage(msgspec.Struct, frozen=True):
    """A tool or model that does not work at all for a while."""

    name: str
    from_s: float
    until_s: float


class Scenario(msgspec.Struct, frozen=True):
    """Everything that a seed decides about a simulation before it begins."""

    seed: int
    quiesced: bool
    owners: int
    shuffle: bool
    span_s: float
    poll_s: float
    rates: Rates
    agents: tuple[AgentPlan, ...]
    orders: tuple[Order, ...]
    switches: tuple[SwitchPlan, ...]
    outages: tuple[Outage, ...]
    accounts: dict[str, Limits]
    slots: int
    tool_timeout_s: float
    key_kept_s: int
    policies: bool
    breaker_failures: int
    crashes: int
    answer_every_s: float

    @property
    def ventures(self) -> bool:
        """Whether workflows are among the runs."""
        return any(order.venture is not None for order in self.orders)

    @property
    def letters(self) -> bool:
        """Whether messages leave through the outbox."""
        return any(order.venture is not None and publishes(order.venture) for order in self.orders)


TOOLS = ("lookup", "note", "ship", "pay", "mail")
"""The simulated tools: a read, an idempotent write, an idempotent external one that can be asked, a reconcilable one, any other."""

LEAVES = ("lookup", "note", "note", "ship", "ship", "pay", "mail", "compute", "sleep", "signal", "approve", "model")
"""What the programs of simulated workflows do."""
FORMS = ("seq", "par", "saga", "saga", "try", "nest")
"""How they put it together."""
TOPIC = "letters"
"""The topic of simulated messages; ``publish`` in a program lets one leave."""
VENTURE = "venture"
"""The route of simulated workflows."""

POLICIES = """
permit(principal, action, resource);
@reason("pay.large") @outcome("ask")
forbid(principal, action in Action::"tool", resource == Tool::"pay") when { context.args.amount > 3 };
@reason("mail.forbidden")
forbid(principal, action in Action::"tool", resource == Tool::"mail") when { context.args.target == "c3" };
"""
"""The policies of those scenarios that have some; the oracle knows the same two rules in its own words."""

SWITCHES = (
    *("disable_tool:pay", "disable_tool:mail", "disable_tool:note", "disable_tool:ship", "disable_tool:lookup"),
    *("freeze", "stop_route:a0", "block_model:large", "deny_tenant:t1", "force_approval:note", "force_approval:mail"),
)


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    chance = random.Random(f"scenario/{seed}")
    quiesced = chance.random() < 0.5
    span_s = chance.choice((20.0, 60.0, 150.0, 300.0))
    agents = tuple([_agent(chance, index) for index in range(chance.randint(1, 3))])
    orders = tuple([_order(chance, index, span_s, agents) for index in range(chance.choice((1, 2, 3, 4, 6, 8, 12)))])
    tool_timeout_s = chance.choice((2.0, 5.0, 20.0, 45.0))
    key_kept_s = 86_400 if chance.random() < 0.6 else int(tool_timeout_s) + chance.choice((5, 30, 90))
    rates = _rates(chance, quiesced=quiesced, keys_expire=key_kept_s < 86_400)
    crowded = chance.random() < 0.1
    if crowded:  # everybody wants the same few tools at once, and somebody meddles
        orders = tuple([_order(chance, index, 2.0, agents[:1]) for index in range(12)])
        rates = msgspec.structs.replace(rates, tool_slow=0.5, meddle=0.3, ignore=0.0, reject=0.1)
        if chance.random() < 0.5:
            asking = msgspec.structs.replace(agents[0], autonomy=Autonomy.EXECUTES_AFTER_APPROVAL, approval_timeout_s=5)
            agents = (asking, *agents[1:])
    if not crowded:
        orders = _with_ventures(random.Random(f"ventures/{seed}"), orders, span_s)
        if not any(order.venture is not None for order in orders):
            orders = _with_letters(random.Random(f"letters of {seed}"), orders, span_s)
    return Scenario(
        seed=seed,
        quiesced=quiesced,
        owners=1 if quiesced else chance.choice((1, 2, 2, 3)),
        shuffle=chance.random() < 0.85,
        span_s=span_s,
        poll_s=chance.choice((0.5, 1.0, 2.0)),
        rates=rates,
        agents=agents,
        orders=orders,
        switches=_switches(chance, span_s),
        outages=_outages(chance, span_s),
        accounts=_accounts(chance),
        slots=1 if crowded else chance.choice((1, 1, 2, 64)),
        tool_timeout_s=tool_timeout_s,
        key_kept_s=key_kept_s,
        policies=chance.random() < 0.4,
        breaker_failures=chance.choice((2, 2, 5)),
        crashes=chance.choice((0, 1, 3, 6)),
        answer_every_s=chance.choice((0.5, 2.0, 8.0)),
    )


def _with_ventures(chance: random.Random, orders: tuple[Order, ...], span_s: float) -> tuple[Order, ...]:
    """In many simulations some workflows are among the runs."""
    if chance.random() < 0.55:
        return orders
    ventures = [_venture_order(chance, index, span_s) for index in range(chance.choice((1, 2, 3)))]
    return (*orders[:3], *ventures)


def _with_letters(chance: random.Random, orders: tuple[Order, ...], span_s: float) -> tuple[Order, ...]:
    """In some of the others, workflows publish messages, a few keys between them."""
    if chance.random() < 0.6:
        return orders
    writers = []
    for index in range(chance.choice((2, 3, 4))):
        kinds = [chance.choice(("publish", "publish", "publish", "sleep", "note")) for _ in range(chance.choice((3, 5, 8)))]
        parts = tuple([Venture(kind, chance.randint(1, 4)) for kind in kinds])
        program = Venture(chance.choice(("seq", "seq", "par")), 0, parts)
        writer = Order(
            f"l{index}",
            chance.random() * span_s * 0.3,
            VENTURE,
            chance.choice(("t0", "t0", "t1")),
            cancel_after_s=chance.random() * chance.choice((2.0, 20.0)) if chance.random() < 0.3 else None,
            twice=chance.random() < 0.1,
            venture=program,
            cancel_mode=chance.choice((None, CancelMode.DRAIN, CancelMode.STOP)),
        )
        writers.append(writer)
    return (*orders[:2], *writers)


def publishes(program: Venture) -> bool:
    """Whether a program publishes messages."""
    return program.kind == "publish" or any(publishes(part) for part in program.parts)


def _venture_order(chance: random.Random, index: int, span_s: float) -> Order:
    program = drawn_venture(chance, 4)
    cancel_after_s = chance.random() * chance.choice((2.0, 20.0, span_s)) if chance.random() < 0.3 else None
    news_s = tuple([chance.random() * 20.0 for _ in range(chance.choice((0, 1, 2, 4)))])
    style = chance.random()
    if style < 0.2:  # somebody changes their mind in the middle of a saga
        steps = (Venture("note", 1), Venture("ship", 2), Venture("sleep", 5), program)
        program, cancel_after_s = Venture("saga", 2, steps), 1.0 + chance.random() * 30.0
    elif style < 0.4:  # messages, one after the other
        program = Venture("seq", 0, (Venture("signal", 1), Venture("signal", 2), program))
        news_s = tuple([chance.random() * 20.0 for _ in range(3)])
    return Order(
        f"v{index}",
        chance.random() * span_s * chance.choice((0.05, 0.5)),
        VENTURE,
        chance.choice(("t0", "t1")),
        deadline_s=chance.choice((*(None,) * 7, 60.0)),
        cancel_after_s=cancel_after_s,
        twice=chance.random() < 0.1,
        venture=program,
        cancel_mode=chance.choice((None, None, None, CancelMode.DRAIN, CancelMode.STOP)),
        news_s=news_s,
    )


def drawn_venture(chance: random.Random, depth: int) -> Venture:
    """A program, at most so deep."""
    if depth == 0 or chance.random() < 0.25:
        return Venture(chance.choice(LEAVES), chance.randint(1, 5))
    count = chance.choice((1, 2, 2, 3))
    return Venture(chance.choice(FORMS), chance.randint(1, 5), tuple([drawn_venture(chance, depth - 1) for _ in range(count)]))


def _rates(chance: random.Random, *, quiesced: bool, keys_expire: bool) -> Rates:
    rates = {}
    for name in Rates.__struct_fields__:
        share = chance.random()
        on = chance.random() < (0.6 if name in ("crash_tool", "pause", "redeploy", "tool_slow") else 0.4)
        most = 0.7 if name in ("ignore", "reject", "redeploy", "repeat", "crash_tool") else 0.25
        rates[name] = share * most if on else 0.0
    rates["crash_commit"] *= 0.4
    rates["crash_model"] *= 0.5
    rates["pause"] *= 0.5 if quiesced else 1.5
    if chance.random() < 0.5:
        for name in ("tool_fails", "tool_hangs", "model_transient", "model_permanent", "model_hangs"):
            rates[name] *= 0.2
    rates["model_permanent"] *= 0.3
    rates["meddle"] *= 0.5
    if keys_expire or not quiesced:
        rates["step_clock"] = 0.0
    if keys_expire:
        rates["tool_late"] = 0.0  # a request that arrives after its key is forgotten can be bounded by nobody but the provider
    if not quiesced:
        rates["sleep_machine"] = 0.0
    return Rates(**rates)


def _agent(chance: random.Random, index: int) -> AgentPlan:
    autonomy = chance.choice(
        (*(Autonomy.BOUNDED_AUTONOMOUS,) * 5, *(Autonomy.EXECUTES_AFTER_APPROVAL,) * 2, Autonomy.DRAFTS_FOR_REVIEW)
    )
    count = chance.randint(2, len(TOOLS))
    tools = tuple(sorted(chance.sample(TOOLS, count)))
    limits = Limits(
        turns=chance.choice((6, 10, 14)),
        tool_calls=chance.choice((4, 12, 30)),
        tokens=chance.choice((None, None, 3_000)),
        cost_microusd=chance.choice((None, None, 4_000)),
        context=chance.choice((1_500, 6_000)),
        repeats=chance.choice((2, 3, 50)),
    )
    degrade_at = chance.choice((None, 0.4, 0.7))
    return AgentPlan(f"a{index}", autonomy, tools, chance.random() < 0.8, degrade_at, limits, chance.choice((5, 30, 120)))


def _order(chance: random.Random, index: int, span_s: float, agents: tuple[AgentPlan, ...]) -> Order:
    at_s = chance.random() * span_s * chance.choice((0.05, 0.5))
    mode = chance.choice((*(None,) * 8, Mode.HUMAN_GATED, Mode.SYNC))
    cancels = chance.random() < 0.12
    return Order(
        f"r{index}",
        at_s,
        chance.choice(agents).name,
        chance.choice(("t0", "t0", "t1")),
        mode,
        deadline_s=chance.choice((*(None,) * 9, 10.0, 60.0, 200.0)),
        turns=chance.choice((None, None, None, 3)),
        tokens=chance.choice((None, None, None, 800)),
        cost=chance.choice((None, None, None, 1_500)),
        cancel_after_s=chance.random() * chance.choice((0.2, 5.0, span_s / 2)) if cancels else None,
        followed=chance.random() < 0.2,
        twice=chance.random() < 0.15,
    )


def _switches(chance: random.Random, span_s: float) -> tuple[SwitchPlan, ...]:
    plans = []
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        on_s = chance.random() * span_s * 0.7
        plans.append(SwitchPlan(chance.choice(SWITCHES), on_s, on_s + chance.random() * chance.choice((1.0, 20.0, span_s))))
    return tuple(plans)


def _outages(chance: random.Random, span_s: float) -> tuple[Outage, ...]:
    plans = []
    for _ in range(chance.choice((0, 0, 1, 2))):
        from_s = chance.random() * span_s * 0.5
        plans.append(Outage(chance.choice((*TOOLS, "large")), from_s, from_s + chance.random() * chance.choice((10.0, span_s))))
    return tuple(plans)


def _accounts(chance: random.Random) -> dict[str, Limits]:
    accounts = {}
    if chance.random() < 0.25:
        accounts["all"] = Limits(model_calls=chance.choice((None, 12)), tokens=chance.choice((None, 6_000)))
    if chance.random() < 0.25:
        accounts["tenant:*"] = Limits(tool_calls=chance.choice((4, 12)), cost_microusd=chance.choice((None, 5_000)))
    if chance.random() < 0.25:
        accounts["route:a0"] = Limits(tokens=chance.choice((2_000, 10_000)), tool_calls=chance.choice((None, 6)))
    return accounts
