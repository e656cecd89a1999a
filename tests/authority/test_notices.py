"""Who should know that something waits is told, in the commit that makes it wait: by webhook, by e-mail, once at least, in every crash."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from quarterdeck import Quarterdeck
from quarterdeck.app.runtime import Runtime
from quarterdeck.cli.settings import settings
from quarterdeck.core.errors import UsageError
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.delivery import Mail, NoticeMail, Webhook, sign
from quarterdeck.dispatch import relay
from quarterdeck.engine import sequencer
from quarterdeck.engine.workflows.context import Context
from quarterdeck.ports.outbox import DeliveryFailed, Message
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched
from tests.outbox.test_targets import receiver, status
from tests.workflows.stage import World, desk, staged

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
FEW = RetryPolicy(max_attempts=3, base_s=1.0, cap_s=4.0, unknown_is_transient=True)
CHAIN = {"owner": "ann", "escalation": ("lead", "head"), "escalate_after": "60s", "approval_timeout": "200s"}
WHOLE = [("waits", "ann"), ("escalated", "lead"), ("escalated", "head"), ("expired", "head")]


def asking(world: World, fails: list[Exception] | None = None) -> Quarterdeck:
    """An agent whose action nobody answers, and who is told of it."""
    deck = desk(world)
    failing = fails if fails is not None else []

    async def told(message: Message) -> None:
        await world.point()
        if failing:
            raise failing.pop(0)
        body = json.loads(message.body)
        world.log.append(f"{body['type'].partition('.')[2]} {body['data']['owner']} {message.message}")
        await world.point()

    agent = deck.agent(
        "a", model=ScriptedModel([[("pay", {"what": "x"})], "over"]), tools=["pay"], autonomy="executes_after_approval"
    )
    deck.route("asks", agent, **CHAIN)  # type: ignore[arg-type]
    deck.notify("all", told, retry=FEW)
    deck.notify("head", told, owners=["head"], kinds=["approval.escalated"], retry=FEW)
    return deck


def check(world: World, store: MemoryStore, *, once: bool = False) -> None:
    heard = Counter(tuple(line.split(" ")) for line in world.log)
    names = [name for _, _, name in heard]
    assert len(set(names)) == len(names) == 5, "each notice has one name, whatever happens"
    assert sorted((kind, owner) for kind, owner, name in heard if name.endswith(":all")) == sorted(WHOLE)
    assert [(kind, owner) for kind, owner, name in heard if name.endswith(":head")] == [("escalated", "head")]
    assert len(store.posts()) == 5 and {row.status for row in store.posts()} == {"delivered"}
    assert not once or set(heard.values()) == {1}


async def _until_told(runtime: Runtime, run_id: str) -> None:
    while any(row.status == "queued" for row in runtime.insights.posts()) or len(runtime.insights.posts()) < 5:
        await runtime.parts.clock.sleep(0.3)


def told(crashes: set[int], fails: list[Exception] | None = None) -> tuple[World, MemoryStore]:
    """One run that nobody answers, within one that stays until everything was told, through crashes."""

    def made(world: World) -> Quarterdeck:
        deck = asking(world, fails)

        @deck.workflow("around")
        async def around(ctx: Context, payload: object) -> object:
            await ctx.agent("asks", "please")
            await ctx.signal("go_on")
            return "done"

        return deck

    with patched(relay, "POLL_S", 5.0):
        result, world, store = staged(made, "around", {}, crashes=crashes, scene=_go_on)
    assert result.status == "succeeded", result
    return world, store


async def _go_on(runtime: Runtime, run_id: str) -> None:
    while any(row.status == "queued" for row in runtime.insights.posts()) or len(runtime.insights.posts()) < 5:
        await runtime.parts.clock.sleep(0.3)
    await runtime.signal(run_id, "go_on", token="once")


def test_each_notice_is_told_once() -> None:
    check(*told(set()), once=True)


@pytest.mark.parametrize("crash", range(1, 90, 2))
def test_a_crash_at_any_moment_loses_no_notice_and_names_none_twice(crash: int) -> None:
    check(*told({crash, crash + 30}))


def test_a_notice_beside_the_commit_would_be_lost() -> None:
    """The test above would see it: notices that leave their commit by themselves are gone where the process dies in between."""
    whole = sequencer.Sequencer._heard

    def beside(self: sequencer.Sequencer, happenings: object) -> object:
        news, heard, _ = whole(self, happenings)  # type: ignore[arg-type]
        return news, heard, ()

    with patched(sequencer.Sequencer, "_heard", beside), pytest.raises((AssertionError, TimeoutError, BaseExceptionGroup)):
        told(set())


def test_a_target_that_fails_is_told_again() -> None:
    check(*told(set(), [OSError("away"), DeliveryFailed("x.busy", "later")]), once=True)


def test_a_dead_notice_stops_no_other() -> None:
    _, store = told(set(), [DeliveryFailed("x.busy", "later")] * FEW.max_attempts)
    stands = {row.message.partition(":")[2]: row.status for row in store.posts()}
    assert stands.pop("waits:0:all") == "dead"
    assert len(stands) == 4 and set(stands.values()) == {"delivered"}


def small() -> Quarterdeck:
    """An agent that asks at once."""
    deck = Quarterdeck("small")

    @deck.tool(effect="irreversible")
    async def refund(card: str) -> str:
        """Pay money back."""
        return "paid"

    deck.agent("a", model=ScriptedModel([[("refund", {"card": "4111-secret"})], "over"]), tools=[refund])
    deck.route("refunds", "a", owner="ann", autonomy="executes_after_approval")
    return deck


async def _told(runtime: Runtime) -> str:
    """Ask, and wait until everything that is to be told was; the approval's name."""
    run = await runtime.submit("refunds", "please", user="ada")
    approval = (await run.rest(timeout_s=10)).waiting_on[0].partition(":")[2]
    async with asyncio.timeout(10):
        while any(row.status == "queued" for row in runtime.insights.posts()):
            await runtime.parts.clock.sleep(0.02)
    return approval


async def test_a_webhook_is_told_what_waits_and_can_be_verified(tmp_path: Path) -> None:
    deck = small()
    async with receiver(status(204)) as (url, got):
        deck.notify("desk", Webhook(url, SECRET, now_s=lambda: 1_700_000_000))
        deck.notify("others", Webhook(url, SECRET, now_s=lambda: 1), owners=["bob"])
        async with deck.start(tmp_path / "s.db") as runtime:
            approval = await _told(runtime)
            row = runtime.insights.approval(approval)
    assert len(got) == 1 and row is not None, "who is no owner hears nothing"
    head, _, body = got[0].partition(b"\r\n\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head.decode().splitlines()[1:])}
    assert headers["webhook-signature"] == sign(SECRET, headers["webhook-id"], 1_700_000_000, body)
    said = json.loads(body)
    assert said["type"] == "approval.waits" and said["data"]["digest"] == row.digest and said["data"]["approval"] == approval
    assert b"4111" not in body, "arguments stay inside"


async def test_a_letter_is_told_over_a_real_mail_server(tmp_path: Path) -> None:
    smtp = pytest.importorskip("aiosmtpd.smtp")
    letters: list[bytes] = []

    class Taking:
        busy = 1

        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            if self.busy:
                self.busy -= 1
                return "451 try again later"
            letters.append(envelope.content)  # type: ignore[attr-defined]
            return "250 taken"

    taking = Taking()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: smtp.SMTP(taking, hostname="here", loop=loop), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (tmp_path / "shop.py").write_text("from tests.authority.test_notices import small\ndeck = small()\n")
    table = f'smtp = "127.0.0.1"\nport = {port}\nsecurity = "none"\nsender = "deck@example.com"\nto = ["ann@example.com"]\n'
    (tmp_path / "deck.toml").write_text(f'[quarterdeck]\napp = "shop:deck"\n[notices.mail]\n{table}owners = ["ann"]\n')
    try:
        async with settings(str(tmp_path / "deck.toml"), None).deck().start(tmp_path / "s.db") as runtime:
            approval = await _told(runtime)
            [post] = runtime.insights.posts()
    finally:
        server.close()
    letter = message_from_bytes(letters[0], policy=policy.default)
    assert (post.status, post.attempts, len(letters)) == ("delivered", 2, 1), "a server that is busy is asked again"
    assert letter["Subject"] == "An approval waits: refund, route refunds, tenant default"
    assert letter["To"] == "ann@example.com" and approval in letter["Message-ID"]
    text = letter.get_content()
    assert f"quarterdeck approvals show {approval}" in text and "4111" not in text


WRONG = {
    'webhook = "https://a.example/x"\n': "notices.target",
    'webhook = "https://a.example/x"\nsecret_env = "NOT_THERE_AT_ALL"\n': "notices.target",
    'webhook = "https://a.example/x"\nsecret_file = "/nowhere/at/all"\n': "notices.target",
    'webhook = "https://a.example/x"\nsmtp = "localhost"\n': "notices.target",
    'smtp = "mail.example"\nsecurity = "none"\nsender = "a@b"\nto = ["a@b"]\n': "mail.security",
    'smtp = "mail.example"\nsender = "a@b"\n': "mail.address",
    'smtp = "mail.example"\nsender = "a@b"\nto = ["a@b"]\nuser = "u"\n': "notices.target",
    'kinds = ["approval.wait"]\nsmtp = "mail.example"\n': "notices.kind",
    'hook = "https://a.example/x"\n': "config.invalid",
}


@pytest.mark.parametrize("table", WRONG)
async def test_a_table_that_could_tell_nobody_stops_the_start(table: str, tmp_path: Path) -> None:
    (tmp_path / "shop_too.py").write_text(
        "from tests.authority.test_notices import small\n\n\ndef __getattr__(name):\n    return small()\n"
    )
    (tmp_path / "deck.toml").write_text(f'[quarterdeck]\napp = "shop_too:deck"\n[notices.desk]\n{table}')
    with pytest.raises(UsageError) as caught:
        async with settings(str(tmp_path / "deck.toml"), None).deck().start(tmp_path / "s.db"):
            pass
    assert caught.value.code == WRONG[table]


async def test_nothing_else_can_speak_as_a_notice() -> None:
    deck = small()
    deck.notify("desk", lambda message: None)
    with pytest.raises(UsageError, match=r"outbox\.twice"):
        deck.outbox("notices.desk", NoticeMail(Mail("localhost", 1, sender="a@b", to=("a@b",), now_s=lambda: 1, security="none")))
    with pytest.raises(UsageError, match=r"notices\.twice"):
        deck.notify("desk", lambda message: None)
    with pytest.raises(DeliveryFailed, match=r"mail\.body"):
        mail = Mail("localhost", 1, sender="a@b", to=("a@b",), now_s=lambda: 1, security="none")
        await NoticeMail(mail).deliver(Message("m", "notices.x", "k", "t", "r", b'{"type": 1}', (), 1, 0))
