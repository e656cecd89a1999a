"""Any endpoint that speaks the OpenAI chat protocol, through the official client.

The client library is imported by the first call, off the event loop: it takes about a second, and ``import quarterdeck`` must not.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from quarterdeck.core.errors import UsageError
from quarterdeck.models.chat import chat_messages, chat_tools
from quarterdeck.models.deltas import Assembly
from quarterdeck.models.prices import price_of
from quarterdeck.models.tokens import input_bound
from quarterdeck.ports.model import ModelFailure, ModelReply, ModelRequest, Price, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"

IDLE_S = 30.0
"""How long a connection to an endpoint is kept that nobody uses."""

OURS = frozenset({"messages", "model", "stream", "stream_options", "tools", "max_tokens", "max_completion_tokens", "n"})
"""Fields of a request that ``extra`` may not hold: they carry the bounds that the budget relies on."""


class OpenAI:
    """One model of one endpoint. A :class:`~quarterdeck.ports.model.Model`.

    ``base_url`` is the root of the API (with its ``/v1``), by default the variable ``OPENAI_BASE_URL`` or OpenAI itself.
    ``api_key`` is a key or, better, a function that gives one; it is asked at each call, so keys can be rotated. Without it the
    variable ``OPENAI_API_KEY`` is read at each call. ``price`` must be given for models that the price list does not know
    (``Price()`` if it costs nothing). ``extra`` is merged into the request's body, e.g. ``{"temperature": 0}``.

    ``worst_case`` counts a token for each byte, which bounds any vocabulary but reserves about four times what is billed.

    >>> OpenAI("gpt-4o-mini", api_key="sk-secret")
    OpenAI('gpt-4o-mini')
    """

    labelled = ""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | Callable[[], str] | None = None,
        price: Price | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self._name = name
        self._base_url = base_url
        self._key = _key_source(api_key)
        self._from_variable = api_key is None
        self._price = price
        self._extra = dict(extra or {})
        self._client: tuple[asyncio.AbstractEventLoop, AsyncOpenAI] | None = None
        if taken := OURS & self._extra.keys():
            raise UsageError("model.extra_reserved", f"extra may not hold {', '.join(sorted(taken))}; the runtime sets these")

    def __repr__(self) -> str:
        at = f", base_url={self._base_url!r}" if self._base_url else ""
        return f"OpenAI({self._name!r}{at})"

    @property
    def name(self) -> str:
        """The model's name as the endpoint knows it."""
        return self._name

    @property
    def price(self) -> Price:
        """The given price or the list's; ``model.price_unknown`` if neither is there, for unknown is not free."""
        if self._price is None:
            url = self._url()
            known = price_of("openai" if _is_openai(url) else None, self._name, api_url=url)
            if known is None:
                raise UsageError(
                    "model.price_unknown",
                    f"the price list does not know {self._name!r} at {urlsplit(url).hostname}; pass price=Price(...), "
                    "or price=Price() if it costs nothing",
                )
            self._price = known
        return self._price

    def worst_case(self, request: ModelRequest) -> Usage:
        """A token for each byte and a margin for the endpoint's template; the whole output allowance, reasoning included."""
        return Usage(input_bound(request), request.max_output_tokens)

    def missing(self) -> str:
        """What every call would fail for; empty if nothing. A function that gives keys is not asked before the first call.

        >>> OpenAI("gpt-4o-mini", api_key=lambda: "").missing()
        ''
        """
        if self._from_variable and not self._key() and _is_openai(self._url()):
            return f"set {KEY_VARIABLE} or pass api_key"
        return ""

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        """One streamed request. The connection is closed on the way out, however that happens."""
        key = self._key()
        if not key and _is_openai(self._url()):
            raise ModelFailure("model.authentication", f"set {KEY_VARIABLE} or pass api_key", transient=False)
        await asyncio.to_thread(importlib.import_module, "quarterdeck.models.failures")
        assembly = Assembly(self._name, request.turn)
        async with aclosing(self._texts(request, assembly, key)) as texts:
            async for text in texts:
                emit(text)
        return assembly.reply()

    async def close(self) -> None:
        """Close pooled connections. A later call opens new ones."""
        kept, self._client = self._client, None
        if kept is not None and kept[0] is asyncio.get_running_loop():
            await kept[1].close()

    async def _texts(self, request: ModelRequest, assembly: Assembly, key: str) -> AsyncGenerator[str, None]:
        """Send the request and feed the assembly; gives the text deltas."""
        from quarterdeck.models.failures import FAILURES, CutShort, NoStream, sorted_failure

        try:
            async with asyncio.timeout(request.timeout_s), await self._open(request) as stream:
                kind = stream.response.headers.get("content-type", "text/event-stream")
                if "event-stream" not in kind:
                    raise NoStream(f"the endpoint answered with {kind[:40]!r}")
                async for chunk in stream:
                    for text in assembly.feed(chunk):
                        yield text
                if not assembly.finished:
                    raise CutShort
        except FAILURES as error:
            raise sorted_failure(error, key) from None  # the cause holds the request, and so the key

    async def _open(self, request: ModelRequest) -> AsyncStream[ChatCompletionChunk]:
        """Send the request; returns when the head of the answer is here."""
        client = self._connected()
        newer = client.base_url.host == "api.openai.com" or client.base_url.host.endswith(".openai.azure.com")
        limit = {"max_completion_tokens" if newer else "max_tokens": request.max_output_tokens}
        body: dict[str, object] = {**self._extra, **limit}
        if request.tools:
            body["tools"] = chat_tools(request.tools)
        return await client.chat.completions.create(
            model=self._name,
            messages=cast("list[ChatCompletionMessageParam]", chat_messages(request.messages)),
            stream=True,
            stream_options={"include_usage": True},
            timeout=request.timeout_s,
            extra_headers={"Idempotency-Key": request.idempotency_key} if request.idempotency_key else None,
            extra_body=body,
        )

    def _connected(self) -> AsyncOpenAI:
        """The client with its pooled connections, which belong to one event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            import httpx2
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            from quarterdeck.models.ceiling import put_ceiling

            # How many calls there may be at once is the dependency's to say: a pool with a limit of its own would let them queue
            # unseen, behind a permit, and fail by a time-out that says nothing.
            pool = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_S)
            http = DefaultAsyncHttpxClient(event_hooks={"response": [put_ceiling]}, follow_redirects=False, limits=pool)
            client = AsyncOpenAI(
                api_key=self._present_key,
                base_url=self._base_url,
                max_retries=0,
                default_headers={"Accept-Encoding": "identity"},
                http_client=http,
            )
            self._client = (loop, client)
        return self._client[1]

    async def _present_key(self) -> str:
        return self._key() or "none"  # an endpoint of one's own may want no key, but the client insists on one

    def _url(self) -> str:
        return self._base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL


def _is_openai(url: str) -> bool:
    return urlsplit(url).hostname == "api.openai.com"


def _key_source(api_key: str | Callable[[], str] | None) -> Callable[[], str]:
    if api_key is None:
        return lambda: os.environ.get(KEY_VARIABLE, "")
    return api_key if callable(api_key) else lambda: api_key
