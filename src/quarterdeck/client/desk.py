"""What both clients are made of: checked settings, and the flows behind their verbs."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Never, TypeVar

from quarterdeck.client import calls, moment
from quarterdeck.client.address import Key, checked_url
from quarterdeck.client.calls import Budget, Call, Order, Submitted
from quarterdeck.client.errors import ClientError
from quarterdeck.client.flows import Manners, attempted
from quarterdeck.client.retrying import Retry
from quarterdeck.client.shapes import Health
from quarterdeck.client.transport import Destination
from quarterdeck.client.wire import Flow

T = TypeVar("T")


class Desk:
    """The part of a client that neither blocks nor awaits. Raises :class:`ClientError` for settings that make no sense."""

    def __init__(
        self,
        url: str,
        key: str | Callable[[], str] | None = None,
        *,
        timeout_s: float = 30.0,
        silence_s: float = 45.0,
        retry: Retry | None = None,
        insecure: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        for name, seconds in (("timeout_s", timeout_s), ("silence_s", silence_s)):
            if not calls.checked_seconds(name, seconds):
                raise ClientError("client.setting", f"{name} is more than 0 seconds")
        self.to = Destination(checked_url(url, insecure=insecure), Key(key), tls)
        self.manners = Manners(timeout_s=timeout_s, silence_s=silence_s, retry=retry or Retry())

    def ask(self, call: Call[T]) -> Flow[Never, T]:
        """One call, repeated as long as that can help."""
        return attempted(call, self.manners)

    def submit(
        self,
        intent: str,
        payload: object,
        *,
        tenant: str | None,
        user: str | None,
        budget: Budget | None,
        idempotency_key: str | None,
        correlation_id: str | None,
        thread_id: str | None,
        ordering_key: str | None,
        priority: str | None,
        mode: str | None,
        labels: Mapping[str, str] | None,
        wait_s: float | None,
    ) -> Flow[Never, Submitted]:
        """Ask for a run under one key, the caller's or a new one."""
        order = Order(
            intent=intent,
            payload=payload,
            tenant=tenant,
            user=user,
            budget=budget,
            idempotency_key=moment.new_key() if idempotency_key is None else idempotency_key,
            correlation_id=correlation_id,
            thread_id=thread_id,
            ordering_key=ordering_key,
            priority=priority,
            mode=mode,
            labels=labels,
            wait_s=wait_s,
        )
        return self.ask(calls.submit(order))

    def health(self) -> Flow[Never, Health]:
        """Asked once only: what is wanted is how it is now."""
        return self.once(calls.health())

    def once(self, call: Call[T]) -> Flow[Never, T]:
        """One call, never repeated."""
        once = Manners(timeout_s=self.manners.timeout_s, silence_s=self.manners.silence_s, retry=Retry(for_s=0.0))
        return attempted(call, once)
