"""What can go wrong at an OpenAI-compatible endpoint, sorted into codes, and whether trying again can help.

Loaded with the first call only, as it needs the client library's exceptions. What was billed all the same (``usage``): nothing
where the endpoint answered with an error before it began or was never reached; unknown where it may have worked for us.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx2
import msgspec
import openai

from quarterdeck.models.ceiling import TooMuch
from quarterdeck.models.deltas import storable
from quarterdeck.ports.model import ModelFailure, Usage

MESSAGE_LIMIT_CHARS = 300
"""How much of a provider's own words goes into a message."""

UNKNOWN = Usage(known=False)


class CutShort(Exception):
    """The stream ended without saying how the answer ended."""


class NoStream(Exception):
    """The endpoint answered with something that is no event stream."""


FAILURES = (
    openai.OpenAIError,
    httpx2.HTTPError,
    msgspec.ValidationError,
    ValueError,  # a line that is no JSON or no UTF-8
    TimeoutError,
    TooMuch,
    CutShort,
    NoStream,
)
"""Everything that the endpoint, the network or the client library raises during one call. Nothing else is caught."""


def sorted_failure(error: Exception, key: str) -> ModelFailure:
    """One of :data:`FAILURES` as the runtime's failure. ``key`` is blotted out wherever the provider repeats it."""
    below = error.__cause__
    if isinstance(error, TooMuch) or isinstance(below, TooMuch):
        return _failure("model.garbled", str(below if isinstance(below, TooMuch) else error), False, usage=UNKNOWN)
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, key)
    if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError):
        reached = not isinstance(below, httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return _failure("model.timeout", "no full answer in time", True, usage=UNKNOWN if reached else None)
    if isinstance(error, openai.APIConnectionError | httpx2.TransportError):
        reached = not isinstance(below, httpx2.ConnectError)
        said = f"no connection to the endpoint, or it broke ({type(below or error).__name__})"
        return _failure("model.unreachable", said, True, usage=UNKNOWN if reached else None)
    if isinstance(error, CutShort):
        return _failure("model.garbled", "the stream ended in mid-answer", True, usage=UNKNOWN)
    if isinstance(error, NoStream):
        return _failure("model.garbled", f"{error}; is base_url the root of an OpenAI-compatible API?", False, usage=UNKNOWN)
    if isinstance(error, openai.APIResponseValidationError) or not isinstance(error, openai.OpenAIError):
        return _failure("model.garbled", f"the stream holds no valid chunk ({type(error).__name__})", True, usage=UNKNOWN)
    if isinstance(error, openai.APIError):  # an error event in the middle of a stream
        code = "model.rate_limited" if "rate_limit" in f"{error.code} {error.type}" else "model.server_error"
        return _failure(code, f"in mid-answer: {_said(error.message, key)}", True, usage=UNKNOWN)
    return _failure("model.authentication", "no usable credentials; set OPENAI_API_KEY or pass api_key", False)


def _of_status(error: openai.APIStatusError, key: str) -> ModelFailure:
    status, said = error.status_code, _said(error.message, key)
    wish = retry_after_s(error.response.headers)
    if status in (401, 403):
        return _failure("model.authentication", f"the endpoint refused the key ({status})", False)
    if status == 408:
        return _failure("model.timeout", f"the endpoint gave up waiting ({said})", True, wish)
    if status == 429:
        used_up = "insufficient_quota" in f"{error.code} {error.type}"
        hint = "the quota is used up, see the provider's billing page: " if used_up else ""
        return _failure("model.rate_limited", hint + said, not used_up, wish)
    if status >= 500:
        maybe_worked = status in (502, 504)  # a gateway gave up on a model that may still have answered
        return _failure("model.server_error", said, True, wish, usage=UNKNOWN if maybe_worked else None)
    return _failure("model.rejected", said, False)


def _failure(code: str, message: str, transient: bool, wish_s: float | None = None, usage: Usage | None = None) -> ModelFailure:
    return ModelFailure(code, message, transient=transient, retry_after_s=wish_s, usage=usage)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The provider's wish in seconds: ``retry-after-ms``, or ``retry-after`` as seconds or a date (against its own clock).

    >>> retry_after_s({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"})
    30.0
    """
    exact = _seconds(headers.get("retry-after-ms"), 1000.0)
    if exact is not None:
        return exact
    given = headers.get("retry-after")
    plain = _seconds(given, 1.0)
    if plain is not None or given is None:
        return plain
    try:
        wait = parsedate_to_datetime(given) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return max(0.0, wait.total_seconds())


def _seconds(text: str | None, per_second: float) -> float | None:
    try:
        value = float(text) / per_second if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _said(message: str, key: str) -> str:
    text = storable(message.replace(key, "[key]") if key else message)
    return text if len(text) <= MESSAGE_LIMIT_CHARS else text[:MESSAGE_LIMIT_CHARS] + " […]"
