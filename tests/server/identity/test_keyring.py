"""API keys at a door: who is let in, for how long, and what guessing costs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.apikeys import assembled, digest_of, prefix_of
from quarterdeck.core.commit import AddKey, RevokeKey
from quarterdeck.core.errors import Unauthenticated, Unavailable, UsageError
from quarterdeck.core.identity import Grant, Principal, Role
from quarterdeck.ports.store import KeyRow
from quarterdeck.server.identity import FRESH_S, KeyAuthenticator, KeyCache, keyring
from quarterdeck.testing.clock import EPOCH_US, VirtualClock, run
from quarterdeck.testing.memory import MemoryStore

KEY = assembled(b"0123456789", b"s" * 32)
GRANTS = (Grant("acme", Role.SUBMITTER),)
DAY_US = 86_400_000_000


class Counting(MemoryStore):
    """A store that counts how often a key is looked up."""

    lookups = 0

    def key(self, prefix: str) -> KeyRow | None:
        self.lookups += 1
        return super().key(prefix)


class Door:
    """A store with one key, an authenticator over it, and a clock that moves when told."""

    def __init__(self, expires_at_us: int | None = None, cache: KeyCache | None = None) -> None:
        self.clock = VirtualClock()
        self.store = Counting("w1")
        self.add(KEY, expires_at_us)
        self.door = KeyAuthenticator(self.store, self.clock, cache)

    def add(self, key: str, expires_at_us: int | None = None) -> None:
        op = AddKey(prefix_of(key) or "", digest_of(key), "l", "ada", GRANTS, "root", EPOCH_US, expires_at_us)
        self.store.tables.apply([op])

    def revoke(self, key: str = KEY) -> None:
        self.store.tables.apply([RevokeKey(prefix_of(key) or "", "root", "", self.clock.now_us())])

    def ask(self, key: str = KEY) -> Principal:
        return run(self.door.authenticate(f"Bearer {key}"))

    def code(self, key: str = KEY) -> str:
        with pytest.raises((Unauthenticated, Unavailable)) as caught:
            self.ask(key)
        assert len(key) < 14 or not any(part in repr((caught.value, caught.value.__dict__)) for part in (key, key[14:]))
        return caught.value.code


def other(number: int) -> str:
    """A well-formed key that nobody made."""
    return assembled(bytes(number >> 5 * place & 31 for place in range(10)), bytes(32))


def test_the_holder_of_a_key_is_who_it_says() -> None:
    assert Door().ask() == Principal("ada", "key", GRANTS)


@given(st.binary(min_size=32, max_size=32))
def test_a_known_prefix_with_another_secret_is_nobody(secret: bytes) -> None:
    forged = assembled(b"0123456789", secret)
    if forged != KEY:
        assert Door().code(forged) == "auth.unknown_key"


def test_unknown_and_wrong_keys_take_one_path_to_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answer, word for word, after the same work: one lookup and one comparison."""
    compared: list[int] = []
    original = keyring.matches
    monkeypatch.setattr(keyring, "matches", lambda key, digest: (compared.append(len(digest)), original(key, digest))[1])
    answers: list[tuple[str, int, list[int]]] = []
    for key in (other(1), assembled(b"0123456789", b"x" * 32)):
        door, before = Door(), len(compared)
        with pytest.raises(Unauthenticated) as caught:
            door.ask(key)
        answers.append((str(caught.value), door.store.lookups, compared[before:]))
    assert answers[0] == answers[1] == (answers[0][0], 1, [32])


def test_no_row_matches_nobodys_hash() -> None:
    """The stand-in for a missing row cannot be the hash of anything that is sent."""
    door = Door()
    door.store.tables.apply([AddKey(prefix_of(other(1)) or "", bytes(32), "l", "eve", GRANTS, "root", EPOCH_US)])
    assert door.code(other(1)) == "auth.unknown_key"


def test_a_revoked_or_expired_key_is_named_only_to_its_holder() -> None:
    door = Door(EPOCH_US + DAY_US)
    door.clock.advance(86_400)
    assert door.code() == "auth.expired"
    door.revoke()
    door.clock.advance(FRESH_S)
    assert door.code() == "auth.revoked"
    assert door.code(assembled(b"0123456789", b"x" * 32)) == "auth.unknown_key"


def test_a_key_holds_until_the_microsecond_of_its_expiry() -> None:
    door = Door(EPOCH_US + 1_000_000)
    door.clock.advance(0.999_999)
    assert door.ask().subject == "ada"
    door.clock.advance(0.000_001)
    assert door.code() == "auth.expired"


def test_a_revocation_elsewhere_arrives_within_a_second() -> None:
    door = Door()
    for _ in range(3):
        assert door.ask().subject == "ada"
    assert door.store.lookups == 1
    door.revoke()
    door.clock.advance(FRESH_S - 0.001)
    assert door.ask().subject == "ada"
    door.clock.advance(0.001)
    assert door.code() == "auth.revoked"


def test_a_revocation_is_not_delayed_by_use_or_by_a_sleeping_machine() -> None:
    door = Door()
    for _ in range(7):
        door.ask()
        door.clock.advance(0.125)
    door.revoke()
    door.clock.suspend(0.125)
    assert door.code() == "auth.revoked"


def test_a_revocation_in_this_process_arrives_at_once() -> None:
    cache = KeyCache()
    door = Door(cache=cache)
    door.ask()
    door.revoke()
    cache.forget(prefix_of(KEY) or "")
    assert door.code() == "auth.revoked"


def test_no_cache_may_hide_a_revocation_for_longer() -> None:
    for fresh_s, size in ((1.001, 10), (-1, 10), (float("nan"), 10), (1, 0), (1, 10**6)):
        with pytest.raises(UsageError, match=r"auth\.cache"):
            KeyCache(fresh_s, size)
    door = Door(cache=KeyCache(0.0))
    door.ask()
    door.revoke()
    assert door.code() == "auth.revoked"


@pytest.mark.parametrize(
    "text", [KEY[:-1], KEY + "a", KEY.replace("_", "-", 1), KEY[:20] + "A" + KEY[21:], "qd_", "x", KEY.upper()]
)
def test_what_is_no_whole_key_costs_no_lookup(text: str) -> None:
    door = Door()
    assert door.code(text) == "auth.malformed"
    assert door.store.lookups == 0


def test_guessing_is_limited_and_holds_up_no_key_in_use() -> None:
    door = Door()
    door.ask()
    codes = [door.code(other(number)) for number in range(1, 300)]
    assert codes == ["auth.unknown_key"] * 100 + ["auth.too_many"] * 199
    assert door.store.lookups == 101
    for _ in range(20):
        door.clock.advance(FRESH_S)  # the row is read anew each time
        codes = [door.code(other(number)) for number in range(1_000, 1_100)]
        assert codes.count("auth.unknown_key") == 50
        assert door.ask().subject == "ada"
    with pytest.raises(Unavailable) as caught:
        door.ask(other(7))
    assert 0 < caught.value.retry_after_s <= 1 / 50


def test_one_wrong_key_again_and_again_is_looked_up_once_a_second() -> None:
    door = Door()
    for _ in range(500):
        assert door.code(other(1)) == "auth.unknown_key"
    assert door.store.lookups == 1
    door.add(other(1))
    door.clock.advance(FRESH_S)
    assert door.ask(other(1)).subject == "ada"


def test_good_keys_are_not_counted_as_guesses() -> None:
    door = Door()
    many = [other(number) for number in range(300)]
    for key in many:
        door.add(key)
    for key in many:
        assert door.ask(key).subject == "ada"


def test_guesses_push_out_no_known_key() -> None:
    cache = KeyCache(size=2)
    door = Door(cache=cache)
    door.ask()
    for number in range(1, 50):
        door.code(other(number))
    lookups = door.store.lookups
    door.ask()
    assert door.store.lookups == lookups
    assert not any(cache.was_known(prefix_of(other(number)) or "") for number in range(1, 50))


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    cache = KeyCache(size=2)
    rows: Sequence[str] = ("aa", "bb", "cc")
    for prefix in rows:
        cache.remember(prefix, KeyRow(prefix, bytes(32), "", "", (), "", 0), 0.0)
    assert [cache.was_known(prefix) for prefix in rows] == [False, True, True]


def test_a_store_that_cannot_be_asked_lets_nobody_in() -> None:
    door = Door()

    def broken(prefix: str) -> KeyRow | None:
        raise Unavailable("store.busy", "busy")

    door.store.key = broken  # type: ignore[method-assign]
    assert door.code() == "store.busy"
