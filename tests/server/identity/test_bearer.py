"""The header is read strictly, and what it holds goes to the one authenticator that knows its form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.apikeys import assembled
from quarterdeck.core.errors import OUTCOMES, Unauthenticated, UsageError
from quarterdeck.core.identity import Action, Principal
from quarterdeck.server.identity import Authenticator, Chain, LoopbackAnonymous
from quarterdeck.server.identity.bearer import MAX_HEADER, credential
from quarterdeck.testing.clock import run

KEY = assembled(bytes(10), bytes(32))


class Named:
    """Accepts everything, as a fixed name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def authenticate(self, authorization: str | None) -> Principal:
        return Principal(self.name, "key")


def asked(chain: Authenticator, authorization: str | None) -> str:
    try:
        return run(chain.authenticate(authorization)).subject
    except Unauthenticated as error:
        assert authorization is None or len(authorization) < 9 or authorization[7:] not in str(error)
        return error.code


@pytest.mark.parametrize(("authorization", "who"), [
    (None, "auth.missing"), (f"Bearer {KEY}", "keys"), (f"bearer {KEY}", "keys"), (f"BEARER   {KEY} ", "keys"), ("Bearer qd_", "keys"),
    ("Bearer a.b.c", "tokens"), ("Bearer a.b", "auth.malformed"), ("Bearer a.b.c.d.e", "auth.malformed"), ("Bearer abc", "auth.malformed"),
    ("", "auth.malformed"), ("Bearer", "auth.malformed"), ("Bearer ", "auth.malformed"), (f"Basic {KEY}", "auth.malformed"),
    (KEY, "auth.malformed"), (f"Bearer {KEY} {KEY}", "auth.malformed"), (f"Bearer {KEY}, Bearer {KEY}", "auth.malformed"),
    (f" Bearer {KEY}", "auth.malformed"), (f"Bearer\t{KEY}", "auth.malformed"), (f"Bearer {KEY}\n", "auth.malformed"),
    (f"Bearer {KEY}\u00e9", "auth.malformed"), ("Bearer qd_" + "a" * MAX_HEADER, "auth.malformed"),
])  # fmt: skip
def test_the_form_decides_who_is_asked(authorization: str | None, who: str) -> None:
    assert asked(Chain(Named("keys"), Named("tokens")), authorization) == who


def test_without_a_provider_tokens_are_of_no_known_form() -> None:
    assert asked(Chain(Named("keys")), "Bearer a.b.c") == "auth.malformed"


def test_anonymous_is_asked_only_where_nothing_was_sent() -> None:
    chain = Chain(Named("keys"), anonymous=LoopbackAnonymous("127.0.0.1"))
    assert asked(chain, None) == "developer"
    for authorization in ("", "Bearer ", "Bearer x", "Basic eDp5"):
        assert asked(chain, authorization) == "auth.malformed"
    assert asked(LoopbackAnonymous("127.0.0.1"), f"Bearer {KEY}") == "auth.malformed"


def test_the_developer_may_do_everything() -> None:
    who = run(LoopbackAnonymous("::1", "sam").authenticate(None))
    assert who.subject == "sam"
    assert all(who.may(action, "acme") for action in Action)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.example.com", "*"],  # noqa: S104
)
def test_anonymous_never_listens_to_other_machines(host: str) -> None:
    with pytest.raises(UsageError, match=r"auth\.anonymous_exposed"):
        LoopbackAnonymous(host)


@given(st.text(max_size=80))
def test_any_header_is_a_credential_or_a_refusal(text: str) -> None:
    try:
        found = credential(text)
    except Unauthenticated as error:
        assert error.code == "auth.malformed"
    else:
        assert found in text and found.isascii() and " " not in found


def test_not_knowing_who_asks_is_401() -> None:
    assert OUTCOMES[Unauthenticated].http_status == 401
