"""Keys for people and programs, and what a person is shown before deciding.

A key says who somebody is and what they may do. Whoever may write the store's file can have one made; everything after that goes
over HTTP with the key.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec

from examples.support.telling import call
from quarterdeck import Unavailable
from quarterdeck.client import ApprovalDetail

LIFETIME = "24h"
"""The demo's keys end by themselves."""


class _Made(msgspec.Struct, frozen=True):
    key: str


async def key_for(store: Path, subject: str, *roles: str) -> str:
    """A new key of somebody, for what these roles may do, made with ``quarterdeck keys create``."""
    command = [sys.executable, "-m", "quarterdeck.cli", "keys", "create", subject, "--label", "made for the demo"]
    command += [word for role in roles for word in ("--role", role)]
    command += ["--lifetime", LIFETIME, "--store", str(store), "--json"]
    made = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    printed, _ = await made.communicate()
    if made.returncode:
        raise Unavailable("demo.key", f"no key could be made for {subject}; it is said above why")
    return msgspec.json.decode(printed, type=_Made).key


def shown(approval: ApprovalDetail) -> str:
    """The action that somebody is asked about: tool, arguments, and why it asks."""
    action = msgspec.convert(approval.shown, dict[str, object])
    arguments = msgspec.json.encode(action["arguments"]).decode()
    return f"{call(approval.tool, arguments)}   {', '.join(msgspec.convert(action['reasons'], list[str]))}"
