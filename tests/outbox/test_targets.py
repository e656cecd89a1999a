"""Where messages go: signatures as receivers check them, answers as they are meant, mail as a server takes it, fixed addresses alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from quarterdeck import UsageError
from quarterdeck.delivery import FunctionDeliverer, Mail, Webhook, sign
from quarterdeck.ports.outbox import DeliveryFailed, Message

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba98").decode()
MESSAGE = Message("r1:s1:0", "orders", "A1", "acme", "r1", b'{"order":"A1"}', (), 1, 0)


@asynccontextmanager
async def receiver(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An HTTP server that gives one answer to all; its address, and what it was sent."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
        got.append(head + await reader.readexactly(size))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", got
    finally:
        server.close()


def status(code: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {code} X\r\ncontent-length: 0\r\nconnection: close\r\n{more}\r\n".encode()


def test_signatures_are_those_of_the_standard() -> None:
    """The vector of the reference libraries."""
    body = b'{"test": 2432232314}'
    signed = sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_webhook_is_signed_with_every_secret() -> None:
    async with receiver(status(204)) as (url, got):
        await Webhook(url, SECRET, OTHER, now_s=lambda: 1_700_000_000).deliver(MESSAGE)
    head, _, body = got[0].partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().lower().splitlines()[1:])
    given = next(line for line in head.decode().splitlines() if line.lower().startswith("webhook-signature")).split(": ")[1]
    assert body == MESSAGE.body
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("r1:s1:0", "1700000000")
    wanted = hmac.new(b"0123456789abcdef01234567", b"r1:s1:0.1700000000." + body, hashlib.sha256).digest()
    assert f"v1,{base64.b64encode(wanted).decode()}" in given.split(" ")
    assert len(given.split(" ")) == 2


@pytest.mark.parametrize(
    ("answer", "code", "transient", "after_s"),
    [
        (status(500), "webhook.refused", True, None),
        (status(429, "retry-after: 7\r\n"), "webhook.refused", True, 7.0),
        (status(400), "webhook.refused", False, None),
        (status(410), "webhook.gone", False, None),
        (status(302, "location: http://127.0.0.1:9/\r\n"), "webhook.refused", False, None),
        (b"", "webhook.unreachable", True, None),
    ],
)
async def test_answers_of_a_receiver(answer: bytes, code: str, transient: bool, after_s: float | None) -> None:
    async with receiver(answer) as (url, got):
        with pytest.raises(DeliveryFailed) as failed:
            await Webhook(url, SECRET, now_s=lambda: 1).deliver(MESSAGE)
    assert (failed.value.code, failed.value.transient, failed.value.retry_after_s) == (code, transient, after_s)
    assert len(got) == 1, "nothing is followed or repeated here"


@pytest.mark.parametrize(
    "url", ["http://example.com/x", "http://127.0.0.1.example.com/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "https://"]
)
def test_webhooks_go_to_safe_addresses_alone(url: str) -> None:
    with pytest.raises(UsageError, match=r"webhook\.url"):
        Webhook(url, SECRET, now_s=lambda: 1)


@pytest.mark.parametrize("secrets", [(), ("whsec_c2hvcnQ=",), ("whsec_%%%",)])
def test_webhooks_are_signed_with_enough(secrets: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"webhook\.secret"):
        Webhook("https://example.com/x", *secrets, now_s=lambda: 1)


@asynccontextmanager
async def post_office(refusing: str = "") -> AsyncIterator[tuple[int, list[str]]]:
    """An SMTP server that takes letters, or refuses receivers with an answer."""
    letters: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).decode().strip():
            word = line.upper().split(" ")[0]
            if word == "RCPT" and refusing:
                writer.write(f"{refusing}\r\n".encode())
            elif word == "DATA":
                writer.write(b"354 go on\r\n")
                letters.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                writer.write(b"250 taken\r\n")
            elif word == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], letters
    finally:
        server.close()


def mail(port: int) -> Mail:
    return Mail("127.0.0.1", port, sender="desk@example.com", to=("ada@example.com",), now_s=lambda: 0, security="none")


def letter(body: bytes) -> Message:
    return Message("r1:s1:0", "mail", "", "acme", "r1", body, (), 1, 0)


async def test_a_letter_arrives_at_the_fixed_address() -> None:
    async with post_office() as (port, letters):
        await mail(port).deliver(letter(b'{"subject":"Please\\nBcc: eve@example.com","text":"Look at it."}'))
    assert "To: ada@example.com" in letters[0] and "Message-ID: <r1.s1.0@quarterdeck>" in letters[0]
    assert "Subject: Please Bcc: eve@example.com" in letters[0], "a subject is one line, whatever it says"
    assert "\r\nBcc:" not in letters[0] and "Look at it." in letters[0]


@pytest.mark.parametrize(("answer", "transient"), [("550 nobody", False), ("451 later", True)])
async def test_a_refusal_says_whether_it_may_pass(answer: str, transient: bool) -> None:
    async with post_office(answer) as (port, letters):
        with pytest.raises(DeliveryFailed, match=r"mail\.refused") as failed:
            await mail(port).deliver(letter(b'{"subject":"a","text":"b"}'))
    assert failed.value.transient is transient and not letters


async def test_what_is_no_letter_is_dead_at_once_and_no_server_is_tried_again() -> None:
    async with post_office() as (port, _):
        with pytest.raises(DeliveryFailed, match=r"mail\.body") as failed:
            await mail(port).deliver(letter(b'{"to":"eve@example.com","subject":"a","text":"b"}'))
    assert not failed.value.transient
    with pytest.raises(DeliveryFailed, match=r"mail\.unreachable") as away:
        await mail(port).deliver(letter(b'{"subject":"a","text":"b"}'))
    assert away.value.transient


@pytest.mark.parametrize(
    "wrong", [{"security": "none", "host": "example.com"}, {"to": ()}, {"to": ("ada\n@x",)}, {"sender": "desk"}]
)
def test_mail_is_safe_and_addressed(wrong: dict[str, object]) -> None:
    said: dict[str, object] = {"host": "127.0.0.1", "sender": "desk@x", "to": ("ada@x",), "security": "tls", **wrong}
    with pytest.raises(UsageError, match=r"mail\."):
        Mail(port=25, now_s=lambda: 0, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_function_gets_the_message(kind: str) -> None:
    got: list[Message] = []

    async def receive(message: Message) -> None:
        got.append(message)

    await FunctionDeliverer(receive if kind == "async" else got.append).deliver(MESSAGE)
    assert got == [MESSAGE] and got[0].json() == {"order": "A1"}
