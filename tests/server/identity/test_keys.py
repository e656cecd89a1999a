"""Making, ending and listing keys: within one's own rights, durably, once, and without leaving the key anywhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from base64 import b64encode, urlsafe_b64decode
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.app.orders import through
from quarterdeck.core.apikeys import PREFIX_BYTES, SECRET_BYTES, prefix_of
from quarterdeck.core.commit import Op, Outcome
from quarterdeck.core.errors import Refused, Unauthenticated, UsageError
from quarterdeck.core.identity import EVERY_TENANT, MAX_GRANTS, Action, Grant, Principal, Role
from quarterdeck.server.identity import (
    LOCAL_OPERATOR,
    KeyAuthenticator,
    KeyCache,
    KeyRequest,
    NewKey,
    create_key,
    ensure_first_admin,
    keys,
    list_keys,
    revoke_key,
)
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run
from quarterdeck.testing.memory import MemoryStore, Moment, lost_answer

CLOCK = VirtualClock()
TENANTS = ("acme", "globex")
ACME_ADMIN = Principal("bo", "user", (Grant("acme", Role.ADMIN),))
SUBMITTER = (Grant("acme", Role.SUBMITTER),)


async def made(store: MemoryStore, by: Principal = LOCAL_OPERATOR, seed: int = 1, **changed: object) -> NewKey:
    request = KeyRequest(**{"subject": "ada", "label": "ci", "grants": SUBMITTER, **changed})  # type: ignore[arg-type]
    return await create_key(store.submit, store, CLOCK, SeededEntropy(seed), request=request, by=by)


def code_of(coroutine: object) -> str:
    with pytest.raises((UsageError, Refused)) as caught:
        run(coroutine)  # type: ignore[arg-type]
    return caught.value.code


def test_a_new_key_opens_the_door_until_it_is_revoked() -> None:
    async def story() -> None:
        store, cache = MemoryStore("w1"), KeyCache()
        new = await made(store, lifetime_s=60)
        door = KeyAuthenticator(store, CLOCK, cache)
        assert await door.authenticate(f"Bearer {new.text}") == Principal("ada", "key", SUBMITTER)
        assert (new.info.status, new.info.created_by, new.info.label) == ("active", "local operator", "ci")
        assert list_keys(store, CLOCK, by=LOCAL_OPERATOR) == [new.info]
        ended = await revoke_key(store.submit, store, CLOCK, prefix=new.info.prefix, by=ACME_ADMIN, reason="leaked", cache=cache)
        assert (ended.status, ended.revoked_by, ended.reason) == ("revoked", "bo", "leaked")
        with pytest.raises(Unauthenticated, match=r"auth\.revoked"):
            await door.authenticate(f"Bearer {new.text}")
        again = await revoke_key(store.submit, store, CLOCK, prefix=new.info.prefix, by=LOCAL_OPERATOR)
        assert again == ended

    run(story())


def test_an_expired_key_is_listed_as_such() -> None:
    async def story() -> None:
        store, clock = MemoryStore("w1"), VirtualClock()
        await made(store, lifetime_s=60)
        await made(store, seed=2)
        clock.advance(60)
        assert [info.status for info in list_keys(store, clock, by=LOCAL_OPERATOR)] == ["expired", "active"]

    run(story())


grants = st.lists(st.builds(Grant, st.sampled_from((*TENANTS, EVERY_TENANT)), st.sampled_from(Role)), min_size=1, max_size=3)


@settings(deadline=None)
@given(grants, grants)
def test_nobody_makes_sees_or_ends_a_key_beyond_their_own_rights(own: list[Grant], wanted: list[Grant]) -> None:
    """For every giver and every key: what is made never exceeds its maker, and a key's manager manages all of its tenants."""
    giver = Principal("bo", "user", tuple(own))

    async def story() -> None:
        store = MemoryStore("w1")
        theirs = await made(store, grants=tuple(wanted))
        manages = all(giver.may(Action.KEYS_MANAGE, grant.tenant) for grant in wanted)
        assert bool(list_keys(store, CLOCK, by=giver)) == manages
        try:
            new = await made(store, giver, 2, grants=tuple(wanted))
        except Refused as error:
            assert error.code == "auth.beyond_rights"
            rows = store.keys()
            assert len(rows) == 1
        else:
            holder = await KeyAuthenticator(store, CLOCK).authenticate(f"Bearer {new.text}")
            for action in Action:
                for tenant in (*TENANTS, EVERY_TENANT):
                    assert giver.may(action, tenant) or not holder.may(action, tenant)
            assert manages
        try:
            await revoke_key(store.submit, store, CLOCK, prefix=theirs.info.prefix, by=giver)
        except UsageError as error:
            assert error.code == "auth.no_such_key" and not manages
        else:
            assert manages

    run(story())


@pytest.mark.parametrize(("changed", "code"), [
    ({"subject": ""}, "key.invalid"), ({"subject": "a\nb"}, "key.invalid"), ({"subject": "agent:d/a"}, "auth.subject_reserved"),
    ({"label": "x" * 257}, "key.invalid"), ({"grants": ()}, "auth.grants"), ({"lifetime_s": 0}, "auth.lifetime"),
    ({"lifetime_s": -1}, "auth.lifetime"),
    ({"lifetime_s": 10**10}, "auth.lifetime"),
    ({"grants": tuple(Grant(f"t{n}", Role.VIEWER) for n in range(MAX_GRANTS + 1))}, "auth.grants"),
])  # fmt: skip
def test_a_request_that_does_not_fit_makes_nothing(changed: dict[str, object], code: str) -> None:
    async def story() -> None:
        store = MemoryStore("w1")
        try:
            await made(store, **changed)
        finally:
            assert not store.tables.api_keys

    assert code_of(story()) == code


def test_there_is_a_limit_to_keys_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_KEYS", 2)

    async def story() -> None:
        store = MemoryStore("w1")
        first = await made(store)
        await made(store, seed=2)
        with pytest.raises(UsageError, match=r"auth\.keys_full"):
            await made(store, seed=3)
        await revoke_key(store.submit, store, CLOCK, prefix=first.info.prefix, by=LOCAL_OPERATOR)
        await made(store, seed=3)

    run(story())


def test_a_prefix_that_comes_twice_is_refused_and_the_first_key_stays() -> None:
    async def story() -> None:
        store = MemoryStore("w1")
        first = await made(store)
        with pytest.raises(UsageError, match=r"auth\.key_taken"):
            await made(store, seed=1, label="another")
        assert (await KeyAuthenticator(store, CLOCK).authenticate(f"Bearer {first.text}")).subject == "ada"

    run(story())


def test_a_key_of_nobody_cannot_be_revoked() -> None:
    store = MemoryStore("w1")
    assert code_of(revoke_key(store.submit, store, CLOCK, prefix="x" * 100, by=LOCAL_OPERATOR)) == "auth.no_such_key"


def traces(key: str) -> set[bytes]:
    """The secret as it might lie about: as text, decoded, encoded again, in parts."""
    secret = key[14:-6]
    raw = urlsafe_b64decode(secret + "=")
    parts = {secret[start:end].encode() for start, end in pairwise(range(0, len(secret), 12))}
    return {key.encode(), secret.encode(), raw, raw.hex().encode(), b64encode(raw), *parts}


def contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


async def test_a_key_is_in_no_file_of_the_store_and_in_no_text(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    journal = await SqliteJournal.open(path, 1)
    insights = SqliteInsights(path)
    entropy = SeededEntropy(7)
    first = await ensure_first_admin(journal.submit, insights, CLOCK, entropy)
    request = KeyRequest("ada", "ci", SUBMITTER)
    new = await create_key(journal.submit, insights, CLOCK, entropy, request=request, by=LOCAL_OPERATOR)
    assert first is not None
    await revoke_key(journal.submit, insights, CLOCK, prefix=new.info.prefix, by=LOCAL_OPERATOR)
    texts = [
        repr(new),
        str(new),
        f"{new}",
        repr(new.info),
        repr(list_keys(insights, CLOCK, by=LOCAL_OPERATOR)),
        repr(insights.keys()),
    ]
    written = contents(tmp_path)
    for key in (first, new.text):
        assert (prefix_of(key) or "?").encode() in written
        for trace in traces(key):
            assert trace not in written
            assert not any(trace in text.encode() for text in texts)
    insights.close()
    await journal.close()


def test_the_first_admin_is_made_once() -> None:
    async def story() -> None:
        store = MemoryStore("w1")
        key = await ensure_first_admin(store.submit, store, CLOCK, SeededEntropy(1))
        assert key is not None
        holder = await KeyAuthenticator(store, CLOCK).authenticate(f"Bearer {key}")
        assert all(holder.may(action, tenant) for action in Action for tenant in (*TENANTS, EVERY_TENANT))
        assert await ensure_first_admin(store.submit, store, CLOCK, SeededEntropy(2)) is None
        await revoke_key(store.submit, store, CLOCK, prefix=prefix_of(key) or "", by=holder)
        assert await ensure_first_admin(store.submit, store, CLOCK, SeededEntropy(3)) is None
        assert len(store.tables.api_keys) == 1

    run(story())


@pytest.mark.parametrize("lost", list(Moment))
def test_a_lost_answer_loses_no_first_admin(lost: Moment) -> None:
    """Whether the operation was applied or not: asked again, it is the same key, and it is told."""
    losses = [lost]

    def faults(moment: Moment, op: Op) -> None:
        if losses and moment is losses[0]:
            losses.clear()
            raise lost_answer()

    async def story() -> None:
        store = MemoryStore("w1", faults=faults)
        key = await ensure_first_admin(through(store), store, CLOCK, SeededEntropy(1))
        assert not losses and key is not None
        assert list(store.tables.api_keys) == [prefix_of(key)]

    run(story())


@pytest.mark.parametrize("seed", range(20))
def test_of_many_starting_processes_one_makes_the_first_admin(seed: int) -> None:
    async def story() -> None:
        first = MemoryStore("w0", quiesced=False)
        owners = [first, *(first.connect(f"w{number}") for number in range(1, 5))]

        async def start(number: int, owner: MemoryStore) -> str | None:
            async def late(op: Op) -> Outcome:  # all of them have looked, and found no key, before the first is stored
                await CLOCK.sleep(seed % 3)
                return await owner.submit(op)

            return await ensure_first_admin(late, owner, CLOCK, SeededEntropy(number))

        found = await asyncio.gather(*(start(number, owner) for number, owner in enumerate(owners)))
        made_here = [key for key in found if key is not None]
        assert len(made_here) == 1
        assert list(first.tables.api_keys) == [prefix_of(made_here[0])]

    run(story(), seed, shuffle=True)


RACER = """
import sys
from pathlib import Path
from quarterdeck.core.apikeys import assembled, digest_of, prefix_of
from quarterdeck.core.commit import AddKey
from quarterdeck.core.identity import Grant, Role
from quarterdeck.store.sqlite.visitor import visit
key = assembled(sys.argv[2].encode() * 10, bytes(32))
op = AddKey(prefix_of(key), digest_of(key), "first key", "admin", (Grant("*", Role.ADMIN),), "first start", 1, first=True)
print("ready", flush=True)
sys.stdin.readline()
print(type(visit(Path(sys.argv[1]), op)).__name__, flush=True)
"""


async def test_two_processes_on_one_file_make_one_first_admin(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    journal = await SqliteJournal.open(path, 1)
    await journal.close()
    command = [sys.executable, "-c", RACER, str(path)]
    racers = [
        subprocess.Popen([*command, letter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        for letter in "abc"
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=30)[0].strip() for racer in racers]
    assert sorted(answers) == ["Applied", "Refused", "Refused"]
    insights = SqliteInsights(path)
    rows = insights.keys()
    assert len(rows) == 1
    insights.close()


def test_a_key_is_made_of_enough_chance() -> None:
    drawn: list[int] = []

    class Watched(SeededEntropy):
        def __init__(self) -> None:
            super().__init__(1)
            token = self.token
            self.token = lambda nbytes: (drawn.append(nbytes), token(nbytes))[1]

    async def story() -> None:
        store = MemoryStore("w1")
        await ensure_first_admin(store.submit, store, CLOCK, Watched())

    run(story())
    assert drawn == [PREFIX_BYTES, SECRET_BYTES]
