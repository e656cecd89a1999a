"""Budgets as an author or caller writes them, and how they become limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal, InvalidOperation

import msgspec

from quarterdeck.core.contract import EnvelopeBudget, Limits
from quarterdeck.core.errors import UsageError
from quarterdeck.core.windows import WINDOWS

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds(value: str | int | float) -> float:
    """A duration in seconds: a number of seconds, or text with a unit.

    >>> seconds("15s"), seconds("24h"), seconds("250ms"), seconds(3)
    (15.0, 86400.0, 0.25, 3.0)
    """
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise UsageError("duration.invalid", f"{value!r} is not a duration; write 250ms, 15s, 5m, 24h or 7d")
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, bool) or not 0 <= value < 1e9:
        raise UsageError("duration.invalid", f"{value!r} is not a duration in seconds")
    return float(value)


def checked_window(window: str) -> str:
    """Return a window's name; raises :class:`UsageError` (``window.unknown``) for any other word."""
    if window not in WINDOWS:
        raise UsageError("window.unknown", f"{window[:40]!r} is no window; use one of {', '.join(WINDOWS)}")
    return window


def microusd(value: str | int | float) -> int:
    """Money in micro-dollars, from dollars; write amounts as text so that they are exact.

    >>> microusd("0.20")
    200000
    """
    try:
        amount = Decimal(str(value)).scaleb(6).to_integral_value(ROUND_DOWN)
    except InvalidOperation:
        raise UsageError("budget.invalid", f"{value!r} is not an amount of dollars; write for example '0.20'") from None
    if not amount.is_finite() or not 0 <= amount < 10**15:
        raise UsageError("budget.invalid", f"{value!r} dollars is out of range")
    return int(amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run, a route, a tenant or everything together may consume; whatever is not named is not limited here.

    ``turns`` are rounds of the loop, ``tools`` tool calls, ``tokens`` all tokens of all model calls, ``context`` tokens of one model
    call, ``compactions`` summaries of the transcript, ``deadline`` wall-clock time from admission (``"15s"``), ``usd`` money (``"0.20"``).
    ``approvals`` is how often a run may ask a person, ``runs`` how many runs a shared account may begin per period. ``delegations`` are the
    runs that a run may ask for, ``depth`` how deeply they nest, ``hops`` through how many runs a correlation may pass; ``working`` is the
    time that its calls may take in all, from intent to receipt (``"10m"``), in which waiting for people and timers does not count.
    """

    turns: int | None = None
    tools: int | None = None
    tokens: int | None = None
    context: int | None = None
    deadline: str | float | None = None
    usd: str | int | float | None = None
    model_calls: int | None = None
    retries: int | None = None
    repeats: int | None = None
    approvals: int | None = None
    runs: int | None = None
    compactions: int | None = None
    delegations: int | None = None
    depth: int | None = None
    hops: int | None = None
    working: str | float | None = None

    def limits(self) -> Limits:
        """The same, in the core's units. Raises :class:`UsageError` for negative or absurd numbers."""
        for name in (
            "turns",
            "tools",
            "tokens",
            "context",
            "model_calls",
            "retries",
            "repeats",
            "compactions",
            "approvals",
            "runs",
            "delegations",
            "depth",
            "hops",
        ):
            value = getattr(self, name)
            if value is not None:
                _check_amount(name, value)
        return Limits(
            turns=self.turns,
            tool_calls=self.tools,
            tokens=self.tokens,
            context=self.context,
            deadline_ms=None if self.deadline is None else int(seconds(self.deadline) * 1_000),
            cost_microusd=None if self.usd is None else microusd(self.usd),
            model_calls=self.model_calls,
            retries=self.retries,
            repeats=self.repeats,
            approvals=self.approvals,
            compactions=self.compactions,
            delegations=self.delegations,
            depth=self.depth,
            hops=self.hops,
            work_ms=None if self.working is None else int(seconds(self.working) * 1_000),
        )

    def envelope(self) -> EnvelopeBudget:
        """The same, as an envelope spells it; raises :class:`UsageError` for what only an agent or a route can limit.

        >>> Budget(turns=3, usd="0.20").envelope().max_cost_usd
        '0.200000'
        """
        limits = self.limits()
        more = (
            "model_calls",
            "retries",
            "repeats",
            "compactions",
            "approvals",
            "runs",
            "delegations",
            "depth",
            "hops",
            "working",
        )
        beyond = [name for name in more if getattr(self, name) is not None]
        if beyond:
            said = f"a caller cannot limit {', '.join(beyond)}; say it in the budget of the agent or the route"
            raise UsageError("budget.invalid", said)
        cost = limits.cost_microusd
        return EnvelopeBudget(
            deadline_ms=limits.deadline_ms,
            max_steps=limits.turns,
            max_tools=limits.tool_calls,
            max_tokens=limits.tokens,
            max_context=limits.context,
            max_cost_usd=None if cost is None else f"{Decimal(cost).scaleb(-6):f}",
        )


def envelope_limits(budget: EnvelopeBudget) -> Limits:
    """The limits of an envelope's budget; raises :class:`UsageError` (``budget.invalid``), in the envelope's words.

    >>> envelope_limits(EnvelopeBudget(max_steps=-1))
    Traceback (most recent call last):
    quarterdeck.core.errors.UsageError: budget.invalid: max_steps=-1 must be a whole number from 0
    """
    check_amounts(budget)
    return Budget(
        turns=budget.max_steps,
        tools=budget.max_tools,
        tokens=budget.max_tokens,
        context=budget.max_context,
        deadline=None if budget.deadline_ms is None else budget.deadline_ms / 1_000,
        usd=budget.max_cost_usd,
    ).limits()


def check_amounts(budget: msgspec.Struct) -> None:
    """Find an amount that is none in a budget as callers spell it: raises :class:`UsageError` (``budget.invalid``) with its name there."""
    for name, value in msgspec.structs.asdict(budget).items():
        if isinstance(value, int):
            _check_amount(name, value)


def _check_amount(name: str, value: int) -> None:
    if isinstance(value, bool) or not 0 <= value < 2**53:
        raise UsageError("budget.invalid", f"{name}={value!r} must be a whole number from 0")


def overlaid(base: Limits, over: Limits) -> Limits:
    """``over`` where it says something, else ``base``."""
    merged = {}
    for name in base.__struct_fields__:
        own = getattr(over, name)
        merged[name] = getattr(base, name) if own is None else own
    return Limits(**merged)
