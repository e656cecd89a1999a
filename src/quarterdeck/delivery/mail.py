"""E-mail over SMTP."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate

import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.ports.outbox import DeliveryFailed, Message


class Letter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a message that is an e-mail: a subject and a text. Who gets it is not the message's to say."""

    subject: str
    text: str


class Mail:
    """Sends each message of a topic to fixed addresses, through one SMTP server.

    The body of a message is a :class:`Letter` as JSON. ``security`` is ``starttls``, ``tls`` or, for a server on this machine, ``none``.
    The message's name is in ``Message-ID``, so that a receiver sees that two are one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str,
        to: tuple[str, ...],
        now_s: Callable[[], int],
        user: str = "",
        password: str = "",
        security: str = "starttls",
        timeout_s: float = 20.0,
    ) -> None:
        if security not in ("starttls", "tls", "none") or (security == "none" and host not in ("127.0.0.1", "localhost", "::1")):
            raise UsageError(
                "mail.security", "mail is sent with security='starttls' or 'tls'; without, only to a server on this machine"
            )
        if not to or any("\n" in address or "\r" in address or "@" not in address for address in (sender, *to)):
            raise UsageError("mail.address", "mail needs a sender and at least one receiver, each name@host")
        self._server = (host, port)
        self._sender = sender
        self._to = to
        self._now_s = now_s
        self._login = (user, password)
        self._security = security
        self._timeout_s = timeout_s

    async def deliver(self, message: Message) -> None:
        """Send it; the server's acceptance means that it has arrived."""
        letter = self._letter(message)
        try:
            await asyncio.to_thread(self._send, letter)
        except smtplib.SMTPResponseException as error:
            permanent = 500 <= error.smtp_code < 600
            raise DeliveryFailed("mail.refused", f"the server answered {error.smtp_code}", transient=not permanent) from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise DeliveryFailed("mail.refused", f"the server answered {codes}", transient=min(codes) < 500) from None
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryFailed("mail.unreachable", type(error).__name__) from None

    def _letter(self, message: Message) -> EmailMessage:
        try:
            said = msgspec.json.decode(message.body, type=Letter)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise DeliveryFailed("mail.body", "the body of an e-mail is JSON with subject and text", transient=False) from None
        letter = EmailMessage()
        letter["From"] = self._sender
        letter["To"] = ", ".join(self._to)
        letter["Subject"] = " ".join(said.subject.split())[:500]
        letter["Date"] = formatdate(self._now_s())
        letter["Message-ID"] = f"<{message.message.replace(':', '.')}@quarterdeck>"
        letter.set_content(said.text)
        return letter

    def _send(self, letter: EmailMessage) -> None:
        host, port = self._server
        kind = smtplib.SMTP_SSL if self._security == "tls" else smtplib.SMTP
        with kind(host, port, timeout=self._timeout_s) as server:
            if self._security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self._login[0]:
                server.login(*self._login)
            server.send_message(letter)
