"""Conditions over history: at most so many calls, and so much of an argument, per value of other arguments and window of time.

"At most 3 refunds and 100 $ per customer and day" is no query over the past, which two at once could both pass, but an *account*: its
name holds the window and the values, its limit what is allowed. A call is counted in the commit of its intent, and the store compares in
the statement that counts; what is certain not to have been done is given back when the run next comes to rest.

Windows are those of the calendar, in UTC. Texts are compared without case, width and space around them, so that another spelling of one
customer is no other customer.

>>> rule = WindowLimit("refunds", ("refund",), ("customer",), "day", uses=3)
>>> [window_of("day", 0), window_of("month", 0), window_of("week", 0), window_of("minute", 90_000_000)]
['1970-01-01', '1970-01', '1970-W01', '1970-01-01T00:01']
>>> one = counted(rule, {"customer": "C-1"}, "acme", {}, 0)
>>> one == counted(rule, {"customer": " c-1"}, "acme", {}, 0), one == counted(rule, {"customer": "C-2"}, "acme", {}, 0)
(True, False)
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal

import msgspec

from quarterdeck.core.canonical import canonical
from quarterdeck.core.commit import Charge
from quarterdeck.core.events import Move
from quarterdeck.core.origins import number

WINDOWS = ("minute", "hour", "day", "week", "month", "ever")
"""The windows that can be counted in."""
FACTS = ("user", "route", "agent")
"""What a limit can be counted per, beside the tenant, which always counts, and arguments."""
PREFIX = "limit:"
"""What the names of these accounts begin with."""
USES = "uses"
"""The dimension that counts calls; ``sum:<argument>`` counts an argument, in millionths."""
MILLION = 1_000_000
MAX_SUM = 2**62
"""The largest sum, in millionths; a call with more is denied."""


class WindowLimit(msgspec.Struct, frozen=True):
    """At most ``uses`` calls of these tools, and ``sums`` (millionths, by argument), per window and per value of ``per``.

    ``code`` is the reason of what is denied.
    """

    name: str
    tools: tuple[str, ...]
    per: tuple[str, ...] = ()
    window: str = "day"
    uses: int | None = None
    sums: Mapping[str, int] = {}
    code: str = ""

    @property
    def reason(self) -> str:
        """The reason code of what it denies."""
        return self.code or f"limit.{self.name}"


def window_of(window: str, now_us: int) -> str:
    """The name of the window that holds this time."""
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)
    match window:
        case "minute":
            return now.strftime("%Y-%m-%dT%H:%M")
        case "hour":
            return now.strftime("%Y-%m-%dT%H")
        case "day":
            return now.strftime("%Y-%m-%d")
        case "week":
            return now.strftime("%G-W%V")
        case "month":
            return now.strftime("%Y-%m")
        case _:
            return "ever"


_PERIOD = re.compile(r"@\d{4}(-W\d\d|-\d\d(-\d\d(T\d\d(:\d\d)?)?)?)\Z")


def tenant_of(account: str) -> str | None:
    """Whose concern a shared account is: the tenant that it is named after, in whatever period; ``None`` where tenants share it.

    >>> [tenant_of(name) for name in ("tenant:acme", "tenant:acme@2026-03", "all", "route:tenant:acme", "tenant:a@b")]
    ['acme', 'acme', None, None, 'a@b']
    >>> tenant_of(thread_account("a/b", "c")), tenant_of(thread_account("a", "b/c") + "@2026-03")
    ('a/b', 'a')
    """
    kind, _, named = account.partition(":")
    if kind == "thread":
        return named.partition("/")[0].replace("%2F", "/").replace("%25", "%")
    return _PERIOD.sub("", named) if kind == "tenant" else None


def thread_account(tenant: str, thread_id: str) -> str:
    """The account of a thread, such as ``thread:acme/42``: another one for every two tenants and threads, and never that of a period.

    >>> (
    ...     thread_account("acme", "42"),
    ...     thread_account("a/b", "c") == thread_account("a", "b/c"),
    ...     thread_account("acme", "42@2026-03"),
    ... )
    ('thread:acme/42', False, 'thread:acme/42%402026-03')
    """
    thread_id = thread_id.replace("%", "%25")
    if is_period(thread_id):
        thread_id = "%40".join(thread_id.rsplit("@", 1))
    return f"thread:{tenant.replace('%', '%25').replace('/', '%2F')}/{thread_id}"


def is_period(name: str) -> bool:
    """Whether a name ends like that of an account of a period."""
    return _PERIOD.search(name) is not None


def seconds_of(window: str, now_us: int) -> tuple[float, float]:
    """How much of the window that holds this time has passed, and how long it lasts, in seconds; ``ever`` lasts for ever."""
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    match window:
        case "minute":
            return now.second + now.microsecond / 1e6, 60.0
        case "hour":
            return (now - now.replace(minute=0, second=0, microsecond=0)).total_seconds(), 3_600.0
        case "day":
            return (now - midnight).total_seconds(), 86_400.0
        case "week":
            return (now - midnight).total_seconds() + now.weekday() * 86_400.0, 604_800.0
        case "month":
            first = midnight.replace(day=1)
            following = (first + timedelta(days=32)).replace(day=1)
            return (now - first).total_seconds(), (following - first).total_seconds()
        case _:
            return 0.0, float("inf")


def counted(
    limit: WindowLimit, arguments: Mapping[str, object], tenant: str, facts: Mapping[str, str], now_us: int
) -> tuple[Charge, ...] | str:
    """What a call counts as, to be committed with its intent; or a reason code, where it cannot be counted."""
    values = [facts[name] if name in FACTS else _folded(arguments.get(name)) for name in limit.per]
    key = hashlib.sha256(canonical([tenant, *values])).hexdigest()[:16]
    account = f"{PREFIX}{limit.name}:{window_of(limit.window, now_us)}:{tenant}:{key}"
    charges = []
    if limit.uses is not None:
        charges.append(_charge(account, USES, 1, limit.uses))
    for argument, most in limit.sums.items():
        exact = number(arguments.get(argument))
        if exact is None or exact < 0 or exact * MILLION > MAX_SUM:
            return "limit.uncountable"
        amount = int((exact * MILLION).to_integral_value(ROUND_CEILING))
        if amount:
            charges.append(_charge(account, f"sum:{argument}", amount, most))
    return tuple(charges)


class Pace(msgspec.Struct, frozen=True):
    """At most ``runs`` admissions per window below an account, such as ``route:triage`` or ``tenant:*``."""

    account: str
    window: str
    runs: int


def paced(paces: Sequence[Pace], above: Sequence[str], now_us: int) -> tuple[Charge, ...]:
    """What the admission of a run below these accounts counts as.

    >>> [one.move.account for one in paced([Pace("tenant:*", "hour", 9)], ["route:x", "tenant:acme", "all"], 0)]
    ['pace:tenant:acme@1970-01-01T00']
    """
    found = []
    for pace in paces:
        kind = pace.account.removesuffix("*")
        for name in above:
            if name == pace.account or (kind != pace.account and name.startswith(kind)):
                found.append(_charge(f"pace:{name}@{window_of(pace.window, now_us)}", "runs", 1, pace.runs))
    return tuple(found)


ENDS = "ends_at_us"
"""The dimension of a thread's account whose limit is the time at which its lifetime ends."""


class Lifetime(msgspec.Struct, frozen=True):
    """The runs of a thread, such as ``thread:acme/42`` or ``thread:*``, last no longer than this in all, from the admission of the first.

    ``window``: it begins anew in each period; ``ever``: it never does.
    """

    account: str
    window: str
    lasts_us: int


def lifetimes_of(lifetimes: Sequence[Lifetime], tenant: str, thread_id: str | None, now_us: int) -> dict[str, int]:
    """The lifetimes that a run of this thread belongs to now, by account, and how long each lasts.

    >>> limits = [Lifetime("thread:*", "ever", 60), Lifetime("thread:*", "day", 9)]
    >>> lifetimes_of(limits, "acme", "42", 0)
    {'thread:acme/42': 60, 'thread:acme/42@1970-01-01': 9}
    >>> lifetimes_of(limits, "acme", None, 0)
    {}
    """
    if thread_id is None:
        return {}
    name = thread_account(tenant, thread_id)
    found: dict[str, int] = {}
    for one in lifetimes:
        if one.account in (name, "thread:*"):
            account = name if one.window == "ever" else f"{name}@{window_of(one.window, now_us)}"
            found[account] = min(one.lasts_us, found.get(account, one.lasts_us))
    return found


def begun(accounts: Mapping[str, int]) -> tuple[Charge, ...]:
    """What makes the end of lifetimes durable: an account keeps the limit with which it first appears, so the first run decides.

    >>> begun({"thread:acme/42": 7})[0].limit
    7
    """
    return tuple([Charge(Move(account, ENDS), ends_at_us) for account, ends_at_us in accounts.items()])


ATTENTION = "approver:"
"""What the names of the accounts begin with that count how often somebody is asked."""


class Attention(msgspec.Struct, frozen=True):
    """At most ``approvals`` asks per window of the owner that ``account`` names, such as ``approver:ann`` or ``approver:*``."""

    account: str
    window: str
    approvals: int


def attended(limits: Sequence[Attention], owner: str, now_us: int) -> tuple[Charge, ...]:
    """What asking this owner counts as; an owner with a limit of its own has not the one for everybody.

    >>> everybody, ann = Attention("approver:*", "hour", 9), Attention("approver:ann", "hour", 3)
    >>> [(one.move.account, one.limit) for one in attended([everybody, ann], "ann", 0)]
    [('approver:ann@1970-01-01T00', 3)]
    >>> [(one.move.account, one.limit) for one in attended([everybody, ann], "bob", 0)]
    [('approver:bob@1970-01-01T00', 9)]
    """
    own = [each for each in limits if each.account == f"{ATTENTION}{owner}"]
    windows = {each.window for each in own}
    own += [each for each in limits if each.account == f"{ATTENTION}*" and each.window not in windows]
    return tuple(
        [_charge(f"{ATTENTION}{owner}@{window_of(each.window, now_us)}", "approvals", 1, each.approvals) for each in own]
    )


def _charge(account: str, dimension: str, amount: int, limit: int) -> Charge:
    """Reserved and spent in one move: the store compares the sum with the limit, and nothing stays reserved."""
    return Charge(Move(account, dimension, leased=amount, returned=amount, spent=amount), limit)


def _folded(value: object) -> object:
    if isinstance(value, str):
        return unicodedata.normalize("NFKC", value).casefold().strip()
    exact = number(value)
    if exact is not None:
        return str(exact.normalize() if exact else Decimal(0))
    return [_folded(item) for item in value] if isinstance(value, list) else value


class Outlook(msgspec.Struct, frozen=True):
    """How an account stands: ``open``, ``near`` its limit, ``exhausted`` or ``overdrawn``; and when it will be used up at the present rate.

    ``exhausted_in_s`` is known of accounts of a period, unless the period ends first.
    """

    standing: str
    exhausted_in_s: int | None = None


STANDINGS = ("open", "near", "exhausted", "overdrawn")
"""How an account can stand."""
NEAR = 0.8
"""From this part of a limit on, an account is near it."""


def outlook(account: str, limit: int | None, committed: int, reserved: int, now_us: int) -> Outlook:
    """What is to be said of an account beside its amounts.

    >>> outlook("all@1970-01-01", 100, 60, 0, 6 * 3_600_000_000)
    Outlook(standing='open', exhausted_in_s=14400)
    >>> outlook("tenant:acme", 100, 101, 0, 0).standing
    'overdrawn'
    """
    if limit is None:
        return Outlook("open")
    used = committed + reserved
    if used >= limit:
        return Outlook("overdrawn" if used > limit else "exhausted", 0)
    standing = "near" if used >= limit * NEAR else "open"
    period = next((each for each in WINDOWS if account.endswith(f"@{window_of(each, now_us)}")), None)
    if period is None or not committed:
        return Outlook(standing)
    passed_s, whole_s = seconds_of(period, now_us)
    left_s = (limit - used) * passed_s / committed
    return Outlook(standing, int(left_s) if left_s < whole_s - passed_s else None)
