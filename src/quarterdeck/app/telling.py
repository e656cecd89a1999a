"""Who is told of what waits for a person: channels as an author or a configuration file declares them.

A table ``[notices.NAME]`` names one target: ``webhook`` with the variable or file of its secret, or ``smtp`` with ``sender`` and ``to``.
Secrets are read when a deck starts, never written into the file itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from quarterdeck.app.clock import SystemClock
from quarterdeck.core.contract import checked_name
from quarterdeck.core.errors import UsageError
from quarterdeck.core.notices import NOTICE_KINDS, Channel
from quarterdeck.delivery.function import FunctionDeliverer
from quarterdeck.delivery.letters import NoticeMail
from quarterdeck.delivery.mail import Mail
from quarterdeck.delivery.webhook import Webhook
from quarterdeck.ports.outbox import Deliverer, Message, Topic


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table ``[notices.NAME]``. ``secret_env`` and ``password_env`` name variables, ``secret_file`` and ``password_file`` files."""

    webhook: str = ""
    secret_env: str = ""
    secret_file: str = ""
    smtp: str = ""
    port: int = 587
    sender: str = ""
    to: tuple[str, ...] = ()
    security: str = "starttls"
    user: str = ""
    password_env: str = ""
    password_file: str = ""
    owners: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


def channel_of(name: str, owners: tuple[str, ...], kinds: tuple[str, ...]) -> Channel:
    """A channel, checked. Raises :class:`UsageError` (``notices.kind``) for a kind that nothing is."""
    unknown = sorted(set(kinds) - set(NOTICE_KINDS))
    if unknown:
        raise UsageError("notices.kind", f"{', '.join(unknown)[:80]!r} is no notice; there are: {', '.join(NOTICE_KINDS)}")
    return Channel(checked_name("channel", name), kinds, owners)


def deliverer_of(target: Deliverer | Callable[[Message], object]) -> Deliverer:
    """Who delivers notices to a target: a mail in words, a function by being called, another deliverer as it is."""
    if isinstance(target, Mail):
        return NoticeMail(target)
    if callable(target) and not hasattr(target, "deliver"):
        return FunctionDeliverer(target)
    return target  # type: ignore[return-value]


def built(name: str, target: Target) -> Deliverer:
    """The deliverer of a table; reads its secrets. Raises :class:`UsageError` (``notices.target``, and what a deliverer refuses)."""
    clock = SystemClock()

    def now_s() -> int:
        return clock.now_us() // 1_000_000

    if bool(target.webhook) == bool(target.smtp):
        raise UsageError("notices.target", f"[notices.{name}] names either webhook or smtp")
    if target.webhook:
        secrets = _secret(f"[notices.{name}] secret", target.secret_env, target.secret_file).split()
        return Webhook(target.webhook, *secrets, now_s=now_s)
    password = ""
    if target.user:
        password = _secret(f"[notices.{name}] password", target.password_env, target.password_file)
    mail = Mail(
        target.smtp,
        target.port,
        sender=target.sender,
        to=target.to,
        now_s=now_s,
        user=target.user,
        password=password,
        security=target.security,
    )
    return NoticeMail(mail)


def relayed(topics: Mapping[str, Topic], told: Mapping[str, tuple[Channel, Topic | Target]]) -> dict[str, Topic]:
    """Every topic that a relay delivers: the deck's own, and those of its channels."""
    found = dict(topics)
    for name, (channel, target) in told.items():
        found[channel.topic] = Topic(channel.topic, built(name, target)) if isinstance(target, Target) else target
    return found


def _secret(what: str, variable: str, file: str) -> str:
    try:
        found = os.environ.get(variable, "") if variable else Path(file).read_text("utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("notices.target", f"{what}: the file cannot be read: {type(error).__name__}") from None
    if not found:
        where = f"the variable {variable} is empty" if variable else "name a variable (…_env) or a file (…_file)"
        raise UsageError("notices.target", f"{what}: {where}")
    return found
