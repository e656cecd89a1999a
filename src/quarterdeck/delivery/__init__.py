"""Where messages of the outbox go: to a function, over a signed webhook, as an e-mail.

Each is a :class:`~quarterdeck.ports.outbox.Deliverer`: it delivers one message once, and says what was wrong where it could not. How often
it is tried, and in which order, is the relay's business. A target is always what an author configured, never what a message says: so no
content can choose an address.

This room must never retry, remember, or follow a redirect.
"""

from quarterdeck.delivery.function import FunctionDeliverer
from quarterdeck.delivery.letters import NoticeMail
from quarterdeck.delivery.mail import Mail
from quarterdeck.delivery.webhook import Webhook, sign

__all__ = ["FunctionDeliverer", "Mail", "NoticeMail", "Webhook", "sign"]
