"""``quarterdeck keys``: the API keys of a store, or of a server. Whoever can write the store's file may manage its keys."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.app.budgets import seconds
from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.options import AsJson, KeyFile, Reason, Server, Store
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import ago, emit, note, say, table
from quarterdeck.client.shapes import KeyInfo
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import EVERY_TENANT, Grant, Role

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
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """Make a key and print it, once."""
    lifetime_s = None if lifetime is None else int(seconds(lifetime))
    grants = [grant_of(text) for text in role]
    with place(store=store, server=server, key_file=key_file) as there:
        made = there.make_key(subject, grants, label, lifetime_s)
    if as_json:
        emit({"key": made.key, "prefix": made.prefix})
    else:
        note("keep it now: it is shown once, and nothing can show it again")
        say(made.key)
    return 0


@group.command("ls")
def ls(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> int:
    """List the keys, the oldest first; never the keys themselves."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.keys()
    if as_json:
        emit(found)
        return 0
    now_us = SystemClock().now_us()
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
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """End a key for ever. Doing it again changes nothing."""
    with place(store=store, server=server, key_file=key_file) as there:
        ended = there.revoke_key(prefix, reason)
    if as_json:
        emit(ended)
    else:
        say(f"revoked {ended.prefix} of {ended.subject}; every process refuses it within a second")
    return 0


def _grants(key: KeyInfo) -> str:
    return " ".join([f"{grant.role}@{grant.tenant}" for grant in key.grants])


def _expiry(key: KeyInfo, now_us: int) -> str:
    return "never" if key.expires_at_us is None else ago(key.expires_at_us, now_us)
