"""Notices as e-mails: the same message, told in words for people."""

from __future__ import annotations

import msgspec

from quarterdeck.core.notices import letter_of
from quarterdeck.delivery.mail import Letter, Mail
from quarterdeck.ports.outbox import DeliveryFailed, Message


class NoticeMail:
    """Sends each notice as a letter, through a :class:`Mail`."""

    def __init__(self, mail: Mail) -> None:
        self._mail = mail

    async def deliver(self, message: Message) -> None:
        """Write the letter and send it; the server's acceptance means that it has arrived."""
        try:
            subject, text = letter_of(message.body)
        except (msgspec.DecodeError, KeyError):
            raise DeliveryFailed("mail.body", "the message is no notice", transient=False) from None
        await self._mail.deliver(msgspec.structs.replace(message, body=msgspec.json.encode(Letter(subject, text))))
