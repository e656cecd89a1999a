"""The outbox in the file: rows put by commits, lanes taken by a relay, how attempts ended, what people decided.

A lane has a row for as long as something of it has not left. ``due_us`` says when its first message may be attempted; a dead one stops
it, which is no time at all. Whoever takes a lane holds it until ``until_us``, under a ticket that grows with every taking.
"""

from __future__ import annotations

from collections.abc import Mapping

import apsw
import msgspec

from quarterdeck.core.commit import Applied, DecidePost, Refused, SettlePost, Taken, TakenPost, TakePosts
from quarterdeck.core.outbox import Post, PostStatus
from quarterdeck.store.sqlite.rows import one, rows

Sql = Mapping[str, str]
_headers: msgspec.json.Decoder[tuple[tuple[str, str], ...]] = msgspec.json.Decoder(tuple[tuple[str, str], ...])


def put(db: apsw.Connection, sql: Sql, run: int, post: Post, at_us: int) -> None:
    """Record one message of a commit."""
    headers = msgspec.json.encode(post.headers).decode()
    db.execute(sql["insert_post"], (run, post.message, post.lane, post.topic, post.key, post.body, headers, at_us))
    db.execute(sql["open_lane"], (post.lane, at_us))


def take(db: apsw.Connection, sql: Sql, op: TakePosts) -> Taken:
    """The first message of each lane that is due; the lanes are the taker's until their lease has run out."""
    taken: list[TakenPost] = []
    for (lane,) in rows(db, sql["due_lanes"], (op.now_us, op.limit)):
        found = db.execute(sql["first_post"], (lane,)).fetchone()
        if found is None:
            db.execute(sql["close_lane"], (lane,))
            continue
        number, status, attempts, run_id, tenant, topic, key, message, body, headers, at_us = found
        if status == PostStatus.DEAD:
            db.execute(sql["stop_lane"], (lane,))
            continue
        db.execute(sql["attempt_post"], (number,))
        ticket = one(db, sql["hold_lane"], (lane, op.now_us + op.lease_us))[0]
        said = _headers.decode(headers)
        taken.append(TakenPost(number, lane, ticket, attempts + 1, run_id, tenant, topic, key, message, body, said, at_us))
    return Taken(tuple(taken))


def settle(db: apsw.Connection, sql: Sql, op: SettlePost) -> Applied | Refused:
    """How an attempt ended. The same again is success, for as long as nobody has taken the lane since."""
    found = db.execute(sql["post_status"], (op.number,)).fetchone()
    if found is None:
        return Refused("post", "gone")
    if found[0] == op.outcome:
        return Applied(op.number)
    held = db.execute(sql["lane_ticket"], (op.lane,)).fetchone()
    if found[0] != PostStatus.QUEUED or held is None or held[0] != op.ticket:
        return Refused("post", found[0])
    status = PostStatus.QUEUED if op.outcome == "again" else op.outcome
    db.execute(sql["settle_post"], (op.number, status, op.code))
    if op.outcome == "dead":
        db.execute(sql["stop_lane"], (op.lane,))
    else:
        db.execute(sql["free_lane"], (op.lane, op.due_us if op.outcome == "again" else op.at_us))
    return Applied(op.number)


def decide(db: apsw.Connection, sql: Sql, op: DecidePost) -> Applied | Refused:
    """A dead message is delivered once more, or dropped; its lane goes on."""
    found = db.execute(sql["find_post"], (op.message,)).fetchone()
    if found is None:
        return Refused("post", "unknown")
    number, lane, status = found
    wanted = PostStatus.QUEUED if op.action == "requeue" else PostStatus.DROPPED
    if status == wanted:
        return Applied(number)
    if status != PostStatus.DEAD:
        return Refused("post", status)
    db.execute(sql["decide_post"], (number, wanted, op.by, op.reason))
    db.execute(sql["wake_lane"], (lane, op.at_us))
    return Applied(number)


def erase(db: apsw.Connection, sql: Sql, run: int, at_us: int) -> None:
    """Destroy the messages of a run; what has not left is withdrawn, and what stood behind it goes on."""
    lanes = rows(db, sql["lanes_of"], (run,))
    db.execute(sql["erase_posts"], (run,))
    for (lane,) in lanes:
        db.execute(sql["wake_lane"], (lane, at_us))
