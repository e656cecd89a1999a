"""``quarterdeck keys``: the API keys of a store. Whoever can write the store's file may manage its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, TypeVar

import typer

from quarterdeck.app.budgets import seconds
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.cli.options import AsJson, Reason, Store
from quarterdeck.cli.orders import visiting
from quarterdeck.cli.printing import ago, emit, note, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import EVERY_TENANT, Grant, Role
from quarterdeck.server.identity import LOCAL_OPERATOR, KeyInfo, create_key, list_keys, revoke_key
from quarterdeck.server.identity.keys import KeyRequest

T = TypeVar("T")

group = typer.Typer(help="API keys of the HTTP interface.", no_args_is_help=True)

RoleOption = Annotated[list[str], typer.Option("--role", metavar="ROLE[@TENANT]", help="What it may do; once or several times.")]
Lifetime = Annotated[
    str | None, typer.Option("--lifetime", metavar="TIME", help="Until it expires: 90d, 12h. Without: for ever.")
]


def grant_of(text: str) -> Grant:
    """A grant from ``role`` (in every tenant) or ``role@tenant``; raises :class:`UsageError` (``auth.role``).

    >>> grant_of("operator@acme")
    Grant(tenant='acme', role=<Role.OPERATOR: 'operator'>)
    """
    role, _, tenant = text.partition("@")
    if role not in set(Role):
        raise UsageError("auth.role", f"{role[:40]!r} is no role; use one of {', '.join(Role)}, or ROLE@TENANT")
    return Grant(tenant or EVERY_TENANT, Role(role))


@group.command("create")
def create(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Who the key stands for; recorded with all that it does.")],
    role: RoleOption,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What it is for.")] = "made on the command line",
    lifetime: Lifetime = None,
    store: Store = None,
    as_json: AsJson = False,
) -> int:
    """Make a key and print it, once."""
    path = settings(None, store).store
    lifetime_s = None if lifetime is None else int(seconds(lifetime))
    request = KeyRequest(subject, label, tuple([grant_of(text) for text in role]), lifetime_s)
    with reading(path) as insights:
        made = _run(create_key(visiting(path), insights, SystemClock(), SystemEntropy(), request=request, by=LOCAL_OPERATOR))
    if as_json:
        emit({"key": made.text, "prefix": made.info.prefix})
    else:
        note("keep it now: it is shown once, and nothing can show it again")
        say(made.text)
    return 0


@group.command("ls")
def ls(store: Store = None, as_json: AsJson = False) -> int:
    """List the keys, the oldest first; never the keys themselves."""
    clock = SystemClock()
    with reading(settings(None, store).store) as insights:
        found = list_keys(insights, clock, by=LOCAL_OPERATOR)
    if as_json:
        emit(found)
        return 0
    now_us = clock.now_us()
    rows = [(key.prefix, key.status, key.subject, _grants(key), key.label, _expiry(key, now_us)) for key in found]
    table(
        ("PREFIX", "STATUS", "SUBJECT", "GRANTS", "LABEL", "EXPIRES"), rows, empty="no keys; `quarterdeck keys create` makes one"
    )
    return 0


@group.command("revoke")
def revoke(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="The key's prefix, as `keys ls` shows it.")],
    reason: Reason = "",
    store: Store = None,
    as_json: AsJson = False,
) -> int:
    """End a key for ever. Doing it again changes nothing."""
    path = settings(None, store).store
    with reading(path) as insights:
        ended = _run(revoke_key(visiting(path), insights, SystemClock(), prefix=prefix, by=LOCAL_OPERATOR, reason=reason))
    if as_json:
        emit(ended)
    else:
        say(f"revoked {ended.prefix} of {ended.subject}; every process refuses it within a second")
    return 0


def _run(work: Coroutine[object, object, T]) -> T:
    async def until_done() -> T:
        return await work

    return asyncio.run(until_done())


def _grants(key: KeyInfo) -> str:
    return " ".join([f"{grant.role}@{grant.tenant}" for grant in key.grants])


def _expiry(key: KeyInfo, now_us: int) -> str:
    return "never" if key.expires_at_us is None else ago(key.expires_at_us, now_us)
