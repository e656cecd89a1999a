"""Bugs on purpose in the relay and in how messages are recorded; simulations with messages have to find them."""

from __future__ import annotations

from quarterdeck.testing.mutants_runtime import RuntimeMutant, mutant

_RELAY = "dispatch.relay:Relay"
_OUTBOX = "testing.tables_outbox:Outbox"

LETTER_MUTANTS: tuple[RuntimeMutant, ...] = (
    mutant(
        "what could not be delivered counts as delivered",
        5,
        "I13",
        (f"{_RELAY}._failed", "if delay_s is None:", "if True:"),
        (f"{_RELAY}._failed", '"dead", now_us, 0, failed.code)', '"delivered", now_us)'),
    ),
    mutant(
        "a receiver that does not answer counts as reached",
        5,
        "I13",
        (
            f"{_RELAY}._attempt",
            'return self._failed(post, topic, DeliveryFailed("outbox.timeout", "no answer in time"))',
            'return SettlePost(post.number, post.lane, post.ticket, "delivered", self._clock.now_us())',
        ),
    ),
    mutant(
        "a message is attempted for ever",
        5,
        "I13",
        (f"{_RELAY}._failed", "next_delay_s(topic.retry, post.attempts,", "next_delay_s(topic.retry, 1,"),
        (f"{_RELAY}._attempt", "if post.attempts > topic.retry.max_attempts:", "if False:"),
    ),
    mutant(
        "the lease of a lane is shorter than an attempt",
        1,
        "I13",
        (f"{_RELAY}.__init__", "self._lease_us = int(", "self._lease_us = 5_000_000 + 0 * int("),
    ),
    mutant(
        "a message does not wait for those before it",
        1,
        "I13",
        ("engine.settling:_post", "post.key or contract.run_id)", "post.key or contract.run_id + call)"),
    ),
    mutant(
        "a message is recorded under a name that another one has",
        4,
        "I13",
        ("engine.settling:_post", '{contract.run_id}:{call}:{place}"', '{contract.run_id}:{call}:{place + 1}"'),
    ),
    mutant(
        "a receipt is durable before its messages",
        5,
        "I13",
        ("engine.settling:settle", "outbox=posts, writes=", "outbox=() if held.state.seq % 3 == 0 else posts, writes="),
    ),
    mutant(
        "a cancel leaves in the outbox what nobody has begun to deliver",
        0,
        "I9",
        (f"{_OUTBOX}.withdraw", "not row.attempts:", "row.attempts:"),
    ),
    mutant(
        "the newest of a lane leaves first",
        1,
        "I13",
        (f"{_OUTBOX}._first", "for number, row in self.rows.items()", "for number, row in reversed(self.rows.items())"),
    ),
    mutant(
        "a dead message does not stop its lane",
        1,
        "I13",
        (f"{_OUTBOX}._first", "row.status in OPEN)", "row.status == PostStatus.QUEUED)"),
        (f"{_OUTBOX}.settle", "lane.due_us = None if", "lane.due_us = op.at_us if"),
    ),
    mutant(
        "what a dead relay had taken stays taken",
        1,
        "I13",
        (f"{_RELAY}.__init__", "self._lease_us = int(", "self._lease_us = 10**6 * int("),
    ),
    mutant(
        "what is noted while a step commits by itself is looked at again",
        9,
        "I14",
        ("engine.workflows.driving:_Driver.round", "if self.held.sequencer.intending:", "if False:"),
        ("engine.workflows.waiting:look", "if held.sequencer.intending:", "if False:"),
    ),
)
"""Planted bugs that simulations with messages have to find."""
