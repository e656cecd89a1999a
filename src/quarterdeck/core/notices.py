"""Notices: what a person should hear of while a run waits for one, as data made of events, and as messages of the same commit.

They are made at one place (the sequencer), of what is about to be durable. A *channel* is somebody who is told: which kinds, for which
owners. Each notice is a message of its own, in a lane of its own, so that none waits for another.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.outbox import Post, lane_of
from quarterdeck.core.state import RunState

NOTICE_KINDS = ("approval.waits", "approval.escalated", "approval.expired", "run.escalated")
"""What can be told."""
TOPIC_PREFIX = "notices."
"""How the topics of notices begin; no other topic may."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encoder = msgspec.json.Encoder(order="deterministic")


class Notice(msgspec.Struct, frozen=True):
    """Something that ``owner`` should see to: an approval ``waits``, was ``escalated`` to the next owner (the ``level``-th), or has
    ``expired``; or the run was escalated. It tells of no content: ``digest`` says which action is meant.
    """

    kind: str
    run_id: str
    tenant: str
    route: str
    approval: str
    tool: str
    owner: str
    at_us: int
    expires_at_us: int
    digest: str = ""
    level: int = 0


class Channel(msgspec.Struct, frozen=True):
    """Somebody who is told of notices: of all ``kinds`` and ``owners``, or of those that are named."""

    name: str
    kinds: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    @property
    def topic(self) -> str:
        """The topic of the outbox under which its notices leave."""
        return f"{TOPIC_PREFIX}{self.name}"

    def hears(self, notice: Notice) -> bool:
        """Whether a notice is for it."""
        return (not self.kinds or notice.kind in self.kinds) and (not self.owners or notice.owner in self.owners)


class Told(msgspec.Struct, frozen=True):
    """The body of a message that is a notice, in the words of Standard Webhooks: a type, a time and what it is about."""

    type: str
    timestamp: str
    data: dict[str, object]


def notice_of(event: ev.Event, state: RunState) -> Notice | None:
    """The notice that an event of this run is, if somebody should hear of it."""
    contract = state.contract
    kind, approval, owner, level = "", "", "", 0
    mark = None
    match event:
        case ev.ApprovalRequested():
            kind, approval, owner = "approval.waits", event.approval, event.owner
        case ev.ApprovalEscalated():
            kind, approval, owner, level = "approval.escalated", event.approval, event.owner, event.level
            mark = state.approvals.get(approval)
        case ev.ApprovalDecided() if event.outcome == "expired":
            kind, approval = "approval.expired", event.approval
            mark = state.approvals.get(approval)
            owner = mark.owner if mark is not None else ""
        case ev.RunEscalated():
            level = state.escalations
            return Notice(
                "run.escalated", contract.run_id, contract.tenant, contract.route, "", "", event.to, event.at_us, 0, "", level
            )
        case _:
            return None
    call, digest, expires_at_us = "", "", 0
    if isinstance(event, ev.ApprovalRequested):
        call, digest, expires_at_us = event.call, event.digest, event.expires_at_us
    elif mark is not None:
        call, digest, expires_at_us = mark.call, mark.digest, mark.expires_at_us
    tool = state.calls[call].tool if call in state.calls else ""
    return Notice(
        kind,
        contract.run_id,
        contract.tenant,
        contract.route,
        approval,
        tool,
        owner,
        event.at_us,
        expires_at_us,
        digest,
        level,
    )


def posts_of(notice: Notice, channels: tuple[Channel, ...]) -> tuple[Post, ...]:
    """The messages that a notice is: one for each channel that hears it, named after what it tells, so that it can be told once.

    >>> notice = Notice("approval.waits", "run_1", "acme", "refunds", "ap_run_1_m1.0", "refund", "ann", 0, 60_000_000)
    >>> [post.message for post in posts_of(notice, (Channel("desk"), Channel("night", owners=("bob",))))]
    ['ap_run_1_m1.0:waits:0:desk']
    """
    heard = [channel for channel in channels if channel.hears(notice)]
    if not heard:
        return ()
    body = body_of(notice)
    word = notice.kind.partition(".")[2]
    posts = []
    for channel in heard:
        message = f"{notice.approval or notice.run_id}:{word}:{notice.level}:{channel.name}"
        posts.append(Post(message, lane_of(notice.tenant, channel.topic, message), channel.topic, message, body))
    return tuple(posts)


def body_of(notice: Notice) -> bytes:
    """A notice as receivers get it."""
    data: dict[str, object] = {
        "run_id": notice.run_id,
        "tenant": notice.tenant,
        "route": notice.route,
        "owner": notice.owner,
    }
    if notice.approval:
        data |= {"approval": notice.approval, "tool": notice.tool, "digest": notice.digest}
        data |= {"expires_at": _time(notice.expires_at_us)}
    return _encoder.encode(Told(notice.kind, _time(notice.at_us), data))


_SUBJECTS = {
    "approval.waits": "An approval waits",
    "approval.escalated": "An approval was escalated to you",
    "approval.expired": "An approval has expired",
    "run.escalated": "A run was escalated to you",
}


def letter_of(body: bytes) -> tuple[str, str]:
    """The same for people: a subject and a text. Raises ``msgspec.DecodeError`` for what is no notice."""
    told = msgspec.json.decode(body, type=Told)
    data = {name: str(value) for name, value in told.data.items()}
    tool = data.get("tool", "")
    subject = (
        f"{_SUBJECTS.get(told.type, told.type)}: {f'{tool}, ' if tool else ''}route {data['route']}, tenant {data['tenant']}"
    )
    lines = [f"{subject}.", ""]
    lines += [f"{name.replace('_', ' ')}: {value}" for name, value in data.items()]
    lines += [f"at: {told.timestamp}", ""]
    if told.type in ("approval.waits", "approval.escalated"):
        lines += [f"quarterdeck approvals show {data['approval']}", f"quarterdeck approvals approve {data['approval']}"]
    else:
        lines += [f"quarterdeck runs show {data['run_id']}"]
    return subject, "\n".join([*lines, ""])


def _time(at_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")
