"""What a call raises: one class, and one below it for calls that got no answer.

Branch on ``code``. Codes of the server are those of its catalogue; codes of the family ``client`` are of this side.
"""

from __future__ import annotations

from collections.abc import Mapping


class ClientError(Exception):
    """A call that did not succeed.

    ``code`` is stable and dotted, ``detail`` a sentence for people, ``status`` the HTTP status, 0 where there is none. ``retry_after_s``
    says when trying again makes sense, where the server said so; ``info`` holds small values for machines. ``maybe_done``: this call or
    an earlier attempt of it may have been carried out, although no answer said so; look before you repeat it under another key.

    >>> error = ClientError("run.unknown", "no run is called 'x'", status=404)
    >>> error.code, error.status, str(error)
    ('run.unknown', 404, "run.unknown: no run is called 'x'")
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int = 0,
        retry_after_s: float | None = None,
        info: Mapping[str, object] | None = None,
        maybe_done: bool = False,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.retry_after_s = retry_after_s
        self.info = dict(info or {})
        self.maybe_done = maybe_done


class Unreachable(ClientError):
    """No answer came: no connection (``client.unreachable``), one that broke (``client.broken``), or silence (``client.timeout``)."""
